"""Starts the processes, watches them, starts again what dies, ends everything on a signal.

Children are in process groups of their own, so that Ctrl-C reaches the supervisor alone, and they
hold the other end of a pipe, so that they cannot outlive it. A child that dies is started again
after a pause that doubles, a rank together with all others; one that dies too often, or refuses to
start, ends the daemon.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from server.child import DRAIN, EXIT_REFUSED, Assignment
from server.distributed.place import Place
from server.heartbeat import Heartbeat
from server.listening import address
from server.settings import Settings

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0

LOOKS_PER_TIMEOUT = 20
"""How often the supervisor looks at the engine's heartbeat within --step-timeout-s."""
ABORT_S = 2.0
"""Time to write stacks to the log."""

API, ENGINE = "server.api_process", "server.engine_process"
ENGINE_NAME = "engine"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Unit:
    """Children that live and die together: the API process, or the ranks of an engine."""

    module: str
    names: tuple[str, ...]
    """The rank of a child is its place here."""


def units(settings: Settings) -> list[Unit]:
    """What a daemon consists of, in the order of its end."""
    others = (f"rank-{rank}" for rank in range(1, settings.ranks))
    return [Unit(API, ("api-0",)), Unit(ENGINE, (ENGINE_NAME, *others))]


@dataclass(frozen=True, slots=True)
class Exited:
    """A child has ended."""

    unit: Unit
    name: str
    child: subprocess.Popen[bytes]
    code: int


@dataclass(frozen=True, slots=True)
class Signalled:
    """The supervisor was told to stop."""

    signum: int


class RestartPolicy:
    """When a child may be started again: after a pause that doubles with each restart in the
    window, and not more than `max_restarts` times in it."""

    def __init__(self, max_restarts: int, window_s: float) -> None:
        self._max_restarts = max_restarts
        self._window_s = window_s
        self._restarts: deque[float] = deque()

    def pause_s(self, now_s: float) -> float | None:
        """How long to wait before the restart that is due, which counts from here; None when there
        were too many."""
        while self._restarts and self._restarts[0] <= now_s - self._window_s:
            self._restarts.popleft()
        if len(self._restarts) == self._max_restarts:
            return None
        self._restarts.append(now_s)
        return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (len(self._restarts) - 1))


class Supervisor:
    """Runs the daemon for one checkpoint on one socket.

    Args:
        checkpoint: folder of the model.
        listener: bound TCP socket that clients connect to.
        operations_listener: another one, for what operators ask.
    """

    def __init__(
        self,
        settings: Settings,
        checkpoint: Path,
        listener: socket.socket,
        operations_listener: socket.socket | None = None,
    ) -> None:
        self._settings = settings
        self._checkpoint = checkpoint
        self._listener = listener
        self._listeners = [s for s in (listener, operations_listener) if s is not None]
        self._drains = False
        self._policy = RestartPolicy(settings.max_restarts, settings.restart_window_s)
        self._units = units(settings)
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._starts = itertools.count()
        # SimpleQueue, because a signal handler puts into it.
        self._events: queue.SimpleQueue[Exited | Signalled] = queue.SimpleQueue()

    def run(self) -> int:
        """Serves until a signal or a failure that cannot be mended; returns the exit status."""
        self._on_signal(lambda signum: self._events.put(Signalled(signum)))
        with (
            tempfile.TemporaryDirectory(prefix="internvl-serve-") as run_dir,
            Heartbeat(Path(run_dir)) as heartbeat,
        ):
            try:
                for unit in reversed(self._units):
                    self._start(unit, run_dir)
                return self._watch(run_dir, heartbeat)
            finally:
                self._stop()

    def _on_signal(self, handle: Callable[[int], None]) -> None:
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, lambda signum, _: handle(signum))

    def _watch(self, run_dir: str, heartbeat: Heartbeat) -> int:
        """Starts again what dies until it must not, or until a signal comes."""
        due_s: dict[Unit, float] = {}
        while True:
            now_s = time.monotonic()
            for unit in [unit for unit, at_s in due_s.items() if at_s <= now_s]:
                del due_s[unit]
                self._start(unit, run_dir)
            self._abort_hung_engine(heartbeat)
            try:
                event = self._events.get(timeout=self._wait_s(due_s))
            except queue.Empty:
                continue
            if isinstance(event, Signalled):
                self._drains = event.signum == signal.SIGTERM
                log.info("%s: ending", signal.Signals(event.signum).name)
                return 0
            if self._children.get(event.name) is not event.child:
                continue  # it was ended on purpose
            self._end_unit(event.unit)
            heartbeat.forget()
            pause_s = self._pause_before_restart(event)
            if pause_s is None:
                return 1
            due_s[event.unit] = time.monotonic() + pause_s

    def _wait_s(self, due_s: dict[Unit, float]) -> float:
        """Until the next restart or the next look at the engine."""
        look_s = self._settings.step_timeout_s / LOOKS_PER_TIMEOUT
        return min([look_s, *(max(0.0, at_s - time.monotonic()) for at_s in due_s.values())])

    def _abort_hung_engine(self, heartbeat: Heartbeat) -> None:
        """Ends an engine whose loop stands still, with its stacks in the log; what follows is what
        follows any death."""
        engine = self._children.get(ENGINE_NAME)
        if engine is None or heartbeat.age_s < self._settings.step_timeout_s:
            return
        log.error("the engine has stood still for %.0f s: aborted", heartbeat.age_s)
        heartbeat.forget()
        engine.send_signal(signal.SIGABRT)
        try:
            engine.wait(ABORT_S)
        except subprocess.TimeoutExpired:
            engine.kill()

    def _end_unit(self, unit: Unit) -> None:
        """Kills what is left of a unit: a rank cannot go on without the others."""
        children = [self._children.pop(name) for name in unit.names if name in self._children]
        for child in children:
            child.kill()
        for child in children:
            child.wait()

    def _pause_before_restart(self, exited: Exited) -> float | None:
        """Logs what happened; None when the child must not be started again."""
        log.error("%s (pid %d) ended with status %d", exited.name, exited.child.pid, exited.code)
        if exited.code == EXIT_REFUSED:
            return None
        pause_s = self._policy.pause_s(time.monotonic())
        if pause_s is None:
            settings = self._settings
            log.error(
                "%d restarts in %.0f s are too many: giving up",
                settings.max_restarts,
                settings.restart_window_s,
            )
        else:
            log.info("%s is started again in %.1f s", ", ".join(exited.unit.names), pause_s)
        return pause_s

    def _start(self, unit: Unit, run_dir: str) -> None:
        epoch = next(self._starts)
        for rank, name in enumerate(unit.names):
            assignment = Assignment(
                name=name,
                settings=self._settings.model_dump(mode="json"),
                checkpoint=str(self._checkpoint),
                run_dir=run_dir,
                listener_fds=[listener.fileno() for listener in self._listeners],
                address=address(self._listener),
                rank=rank,
                place=Place(file=f"{run_dir}/ranks-{epoch}"),
                restarts=max(0, epoch + 1 - len(self._units)),
            )
            self._start_child(unit, assignment)

    def _start_child(self, unit: Unit, assignment: Assignment) -> None:
        # -P: a folder called `server` where the user stands must not take this package's place.
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", unit.module],
            stdin=subprocess.PIPE,
            pass_fds=assignment.listener_fds,
            process_group=0,
        )
        assert child.stdin is not None
        name = assignment.name
        self._children[name] = child
        threading.Thread(target=self._report_exit, args=(unit, name, child), daemon=True).start()
        log.info("%s started (pid %d)", name, child.pid)
        with contextlib.suppress(BrokenPipeError):  # it has ended already; its thread tells
            child.stdin.write(msgspec.json.encode(assignment) + b"\n")
            child.stdin.flush()

    def _report_exit(self, unit: Unit, name: str, child: subprocess.Popen[bytes]) -> None:
        self._events.put(Exited(unit, name, child, child.wait()))

    def _stop(self) -> None:
        """Ends the API, so that clients hear of it, then the engine. A second signal kills them."""
        self._on_signal(lambda _: self._kill())
        for listener in self._listeners:
            listener.close()  # or connections would wait for a process that does not come
        for unit in self._units:
            self._stop_unit(unit)

    def _stop_unit(self, unit: Unit) -> None:
        settings, signum = self._settings, signal.SIGTERM
        deadline_s = time.monotonic() + settings.shutdown_timeout_s
        if unit.module == API and self._drains:
            signum = DRAIN
            deadline_s += settings.drain_grace_s + settings.drain_timeout_s
        children = {n: self._children[n] for n in unit.names if n in self._children}
        for child in children.values():
            child.send_signal(signum)
        for name, child in children.items():
            try:
                child.wait(max(0.0, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("%s (pid %d) did not end in time: killed", name, child.pid)
                child.kill()
                child.wait()

    def _kill(self) -> None:
        for child in self._children.values():
            child.kill()
