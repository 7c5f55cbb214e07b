"""Starts the processes, watches them, starts again what dies, ends everything on a signal.

Children are in process groups of their own, so that Ctrl-C reaches the supervisor alone, and they
hold the other end of a pipe, so that they cannot outlive it. A child that dies is started again
after a pause that doubles; one that dies too often, or refuses to start, ends the daemon.
"""

from __future__ import annotations

import contextlib
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

from server.child import EXIT_REFUSED, Assignment
from server.errors import StartupError
from server.settings import Settings

BACKLOG = 2048
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0

MODULES = {"engine": "server.engine_process", "api-0": "server.api_process"}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Exited:
    """A child has ended."""

    name: str
    pid: int
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
    """

    def __init__(self, settings: Settings, checkpoint: Path, listener: socket.socket) -> None:
        self._settings = settings
        self._checkpoint = checkpoint
        self._listener = listener
        self._policy = RestartPolicy(settings.max_restarts, settings.restart_window_s)
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        # SimpleQueue, because a signal handler puts into it.
        self._events: queue.SimpleQueue[Exited | Signalled] = queue.SimpleQueue()

    def run(self) -> int:
        """Serves until a signal or a failure that cannot be mended; returns the exit status."""
        self._on_signal(lambda signum: self._events.put(Signalled(signum)))
        with tempfile.TemporaryDirectory(prefix="internvl-serve-") as run_dir:
            try:
                for name in MODULES:
                    self._start(name, run_dir)
                return self._watch(run_dir)
            finally:
                self._stop()

    def _on_signal(self, handle: Callable[[int], None]) -> None:
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, lambda signum, _: handle(signum))

    def _watch(self, run_dir: str) -> int:
        """Starts again what dies until it must not, or until a signal comes."""
        due_s: dict[str, float] = {}
        while True:
            wait_s = max(0.0, min(due_s.values()) - time.monotonic()) if due_s else None
            try:
                event = self._events.get(timeout=wait_s)
            except queue.Empty:
                name = min(due_s, key=lambda name: due_s[name])
                del due_s[name]
                self._start(name, run_dir)
                continue
            if isinstance(event, Signalled):
                log.info("%s: ending", signal.Signals(event.signum).name)
                return 0
            pause_s = self._pause_before_restart(event)
            if pause_s is None:
                return 1
            due_s[event.name] = time.monotonic() + pause_s

    def _pause_before_restart(self, exited: Exited) -> float | None:
        """Logs what happened; None when the child must not be started again."""
        log.error("%s (pid %d) ended with status %d", exited.name, exited.pid, exited.code)
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
            log.info("%s is started again in %.1f s", exited.name, pause_s)
        return pause_s

    def _start(self, name: str, run_dir: str) -> None:
        assignment = Assignment(
            name=name,
            settings=self._settings.model_dump(mode="json"),
            checkpoint=str(self._checkpoint),
            run_dir=run_dir,
            listener_fd=self._listener.fileno(),
            address=address(self._listener),
        )
        # -P: a folder called `server` where the user stands must not take this package's place.
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", MODULES[name]],
            stdin=subprocess.PIPE,
            pass_fds=[self._listener.fileno()],
            process_group=0,
        )
        assert child.stdin is not None
        self._children[name] = child
        threading.Thread(target=self._report_exit, args=(name, child), daemon=True).start()
        log.info("%s started (pid %d)", name, child.pid)
        with contextlib.suppress(BrokenPipeError):  # it has ended already; its thread tells
            child.stdin.write(msgspec.json.encode(assignment) + b"\n")
            child.stdin.flush()

    def _report_exit(self, name: str, child: subprocess.Popen[bytes]) -> None:
        self._events.put(Exited(name, child.pid, child.wait()))

    def _stop(self) -> None:
        """Ends the API, so that clients hear of it, then the engine. A second signal kills them."""
        self._on_signal(lambda _: self._kill())
        deadline_s = time.monotonic() + self._settings.shutdown_timeout_s
        for name in reversed(MODULES):
            child = self._children.get(name)
            if child is None:
                continue
            child.terminate()
            try:
                child.wait(max(0.0, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("%s (pid %d) did not end in time and is killed", name, child.pid)
                child.kill()
                child.wait()

    def _kill(self) -> None:
        for child in self._children.values():
            child.kill()


def listen(host: str, port: int) -> socket.socket:
    """Binds the daemon's socket before anything is loaded: a taken port is known at once, and
    connections wait in the backlog while processes come and go.

    Raises:
        StartupError: the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise StartupError(
            f"cannot listen on {host}, port {port} ({error.strerror}): choose another --port, or "
            "0 for a free one"
        ) from None


def address(listener: socket.socket) -> str:
    """URL of a bound socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
