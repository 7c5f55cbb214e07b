"""The child processes of a supervisor: started with an assignment, watched, ended.

Children are in process groups of their own, so that Ctrl-C reaches the supervisor alone, and they
hold the other end of a pipe, so that they cannot outlive it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from server.child import EXIT_REFUSED, Assignment

API, ENGINE = "server.api_process", "server.engine_process"

PATIENCE = {"GOMP_SPINCOUNT": "4000"}
"""How often a thread of torch's looks for its next operation before it sleeps: tens of
microseconds, which covers what lies between the operations of a step. Left alone it looks for
milliseconds, in which another daemon on the same cores would have worked. What the operator has set
comes first."""

ABORT_S = 2.0
"""Time to write stacks to the log."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Exited:
    """A child has ended."""

    name: str
    child: subprocess.Popen[bytes]
    code: int

    @property
    def refused(self) -> bool:
        """Whether it would end in the same way again."""
        return self.code == EXIT_REFUSED

    def __str__(self) -> str:
        how = f"ended with status {self.code}"
        if self.code < 0:
            how = f"was ended by {signal.Signals(-self.code).name}"
        return f"{self.name} (pid {self.child.pid}) {how}"


@dataclass(frozen=True, slots=True)
class Signalled:
    """The supervisor was told to stop."""

    signum: int


class Children:
    """Puts `Exited` into `events` for every child that ends."""

    def __init__(self, events: queue.SimpleQueue[Any]) -> None:
        self._events = events
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._children

    def start(self, module: str, assignment: Assignment, inherited: Sequence[int] = ()) -> None:
        """
        Args:
            inherited: open files that the child may use.
        """
        # -P: a folder called `server` where the user stands must not take this package's place.
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            pass_fds=inherited,
            env=PATIENCE | os.environ,
            process_group=0,
        )
        assert child.stdin is not None
        name = assignment.name
        self._children[name] = child
        threading.Thread(target=self._report_exit, args=(name, child), daemon=True).start()
        log.info("%s started (pid %d)", name, child.pid)
        with contextlib.suppress(BrokenPipeError):  # it has ended already; its thread tells
            child.stdin.write(msgspec.json.encode(assignment) + b"\n")
            child.stdin.flush()

    def _report_exit(self, name: str, child: subprocess.Popen[bytes]) -> None:
        self._events.put(Exited(name, child, child.wait()))

    def expected(self, exited: Exited) -> bool:
        """Whether a child was ended on purpose."""
        return self._children.get(exited.name) is not exited.child

    def kill(self, names: Iterable[str]) -> None:
        children = [self._children.pop(name) for name in names if name in self._children]
        for child in children:
            child.kill()
        for child in children:
            child.wait()

    def abort(self, name: str) -> None:
        """Ends a child with its stacks in the log. It counts as dead by itself."""
        child = self._children[name]
        child.send_signal(signal.SIGABRT)
        child.send_signal(signal.SIGCONT)  # or one that was stopped would not notice
        try:
            child.wait(ABORT_S)
        except subprocess.TimeoutExpired:
            child.kill()

    def terminate(
        self, names: Iterable[str], deadline_s: float, signum: int = signal.SIGTERM
    ) -> None:
        """Lets children end by themselves until `deadline_s` of the monotonic clock."""
        children = {name: self._children[name] for name in names if name in self._children}
        for child in children.values():
            child.send_signal(signum)
        for name, child in children.items():
            try:
                child.wait(max(0.0, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("%s (pid %d) did not end in time: killed", name, child.pid)
                child.kill()
                child.wait()

    def kill_all(self) -> None:
        """Without waiting; for a second signal."""
        for child in list(self._children.values()):
            child.kill()


def on_signal(handle: Callable[[int], None]) -> None:
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda signum, _: handle(signum))
