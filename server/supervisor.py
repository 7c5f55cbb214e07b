"""Starts the processes, watches them, starts again what dies, ends everything on a signal.

A child that dies is started again after a pause that doubles, a rank together with all others, on
whatever host they run; one that dies too often, or refuses to start, ends the daemon. The decision
is the head's alone: other hosts have a `worker`, which does what it is told.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import queue
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from server.child import DRAIN, Assignment
from server.children import API, ENGINE, Children, Exited, Signalled, on_signal
from server.distributed.place import Place
from server.errors import StartupError
from server.hosts import FailedThere, Hosts, Joined, Lost, meeting_socket
from server.listening import Listeners
from server.settings import Settings
from server.watchdog import ENGINE_NAME, Watchdog

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
SAY_EVERY_S = 10.0

SOCKET_NAME_BYTES_MAX = 107
"""Of a unix socket, with its folder."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Unit:
    """Children that live and die together: an API process, or the ranks of an engine."""

    module: str
    names: tuple[str, ...]
    first_rank: int = 0
    """That of the first of them; the others follow. API processes are counted by it."""


def units(settings: Settings) -> list[Unit]:
    """What a daemon consists of, in the order of its end."""
    apis = [Unit(API, (f"api-{place}",), place) for place in range(settings.api_workers)]
    others = (f"rank-{rank}" for rank in range(1, settings.ranks // settings.nnodes))
    return [*apis, Unit(ENGINE, (ENGINE_NAME, *others))]


def watched(units: Sequence[Unit]) -> list[tuple[str, ...]]:
    """Processes that must not stand still: all ranks, and API processes that have others beside
    them. One that is alone does not answer probes then, and whoever sends those decides."""
    apis = [unit.names for unit in units if unit.module == API]
    return [units[-1].names, *(apis if len(apis) > 1 else [])]


def check_run_dir(settings: Settings, run_dir: str) -> None:
    """
    Raises:
        StartupError: sockets in the directory would have names that are too long.
    """
    names = ["engine.sock", f"rank-{settings.ranks - 1}.sock"]
    if settings.api_workers > 1:
        names.append(f"responses-{settings.api_workers - 1}.sock")
    longest = f"{run_dir}/{max(names, key=len)}"
    excess = len(os.fsencode(longest)) - SOCKET_NAME_BYTES_MAX
    if excess > 0:
        raise StartupError(
            f"sockets in {run_dir} would have names that are too long: set TMPDIR to a folder "
            f"whose name is {excess} bytes shorter"
        )


def _exit(signum: int) -> NoReturn:
    """While there is nothing to end yet."""
    log.info("%s: ending", signal.Signals(signum).name)
    sys.exit(0)


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
    """Runs the daemon for one checkpoint.

    Args:
        checkpoint: folder of the model.
        listeners: where clients connect, and perhaps others for what operators ask.
    """

    def __init__(
        self, settings: Settings, checkpoint: Path, listeners: Sequence[Listeners]
    ) -> None:
        self._settings = settings
        self._checkpoint = checkpoint
        self._listeners = listeners
        self._drains = False
        self._policy = RestartPolicy(settings.max_restarts, settings.restart_window_s)
        self._units = units(settings)
        self._starts = itertools.count()
        self._restarts = 0
        self._epoch = -1
        # SimpleQueue, because a signal handler puts into it.
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._children = Children(self._events)
        self._hosts: Hosts | None = None
        self._due_s: dict[Unit, float] = {}
        self._incomplete_since_s = 0.0
        self._waits_for_hosts = False

    def run(self) -> int:
        """Serves until a signal or a failure that cannot be mended; returns the exit status."""
        on_signal(_exit)
        status = 1
        with (
            tempfile.TemporaryDirectory(prefix="internvl-serve-") as run_dir,
            self._watchdog(Path(run_dir)) as watchdog,
        ):
            check_run_dir(self._settings, run_dir)
            if self._settings.nnodes > 1:
                self._hosts = Hosts(self._settings, self._checkpoint, self._events)
                self._incomplete_since_s = time.monotonic()
            on_signal(lambda signum: self._events.put(Signalled(signum)))
            try:
                self._due_s = dict.fromkeys(reversed(self._units), 0.0)
                status = self._watch(run_dir, watchdog)
                return status
            finally:
                self._stop(status)

    def _watchdog(self, run_dir: Path) -> Watchdog:
        return Watchdog(run_dir, watched(self._units), self._settings.step_timeout_s)

    def _watch(self, run_dir: str, watchdog: Watchdog) -> int:
        """Starts what is due, and again what dies, until it must not or until a signal comes."""
        while True:
            wait_s = self._start_what_is_due(run_dir)
            if wait_s < 0:
                return 1
            watchdog.abort_stopped(self._children)
            try:
                event = self._events.get(timeout=min(wait_s, watchdog.look_s))
            except queue.Empty:
                continue
            watched_epoch = self._epoch
            may_go_on = True
            match event:
                case Signalled(signum):
                    self._drains = signum == signal.SIGTERM
                    log.info("%s: ending", signal.Signals(signum).name)
                    return 0
                case Exited() as exited if not self._children.expected(exited):
                    may_go_on = self._fail(self._unit_of(exited.name), str(exited), exited.refused)
                case FailedThere(what, epoch, refused) if epoch == self._epoch:
                    may_go_on = self._fail(self._units[-1], what, refused)
                case Lost(what):
                    self._incomplete_since_s = time.monotonic()
                    may_go_on = self._fail(self._units[-1], what, refused=False)
                case Joined():
                    if self._waits_for_hosts:
                        self._due_s[self._units[-1]] = 0.0
            if not may_go_on:
                return 1
            if watched_epoch != self._epoch:
                watchdog.mention_silent()
            watchdog.forget_absent(self._children)

    def _start_what_is_due(self, run_dir: str) -> float:
        """Returns how long nothing has to be done; negative when hosts did not come in time."""
        now_s = time.monotonic()
        for unit in [unit for unit, due_s in self._due_s.items() if due_s <= now_s]:
            if unit.module == ENGINE and self._hosts is not None and self._hosts.missing:
                wait_s = self._wait_for_hosts(self._hosts.missing, now_s)
                if wait_s < 0:
                    return wait_s
                self._due_s[unit] = now_s + wait_s
                self._waits_for_hosts = True
                continue
            del self._due_s[unit]
            self._start(unit, run_dir)
        return min((max(0.0, due - now_s) for due in self._due_s.values()), default=math.inf)

    def _wait_for_hosts(self, missing: list[int], now_s: float) -> float:
        """Says who is missing; returns how long until it has to be said again, or -1 when it has
        been said for long enough."""
        limit_s, waited_s = self._settings.join_timeout_s, now_s - self._incomplete_since_s
        names = ", ".join(f"node {node}" for node in missing)
        if waited_s > limit_s:
            log.error("%s did not come within %.0f s: giving up", names, limit_s)
            return -1
        log.info(
            "waiting for %s of %d hosts: %.0f s of %.0f s",
            names,
            self._settings.nnodes,
            waited_s,
            limit_s,
        )
        return min(SAY_EVERY_S, limit_s - waited_s + 0.1)

    def _unit_of(self, name: str) -> Unit:
        return next(unit for unit in self._units if name in unit.names)

    def _fail(self, unit: Unit, what: str, refused: bool) -> bool:
        """Ends what is left of a unit, because a rank cannot go on without the others, and settles
        when it is started again; false when it must not be."""
        log.error("%s", what)
        self._children.kill(unit.names)
        if unit.module == API:
            for listeners in self._listeners:
                listeners.replace(unit.first_rank)
        else:
            if self._hosts is not None:
                self._hosts.stop()
            self._epoch = -1
        if unit in self._due_s:
            return not refused
        pause_s = None if refused else self._policy.pause_s(time.monotonic())
        if pause_s is not None:
            log.info("%s is started again in %.1f s", ", ".join(unit.names), pause_s)
            self._due_s[unit] = time.monotonic() + pause_s
        elif not refused:
            log.error(
                "%d restarts in %.0f s are too many: giving up",
                self._settings.max_restarts,
                self._settings.restart_window_s,
            )
        return pause_s is not None

    def _start(self, unit: Unit, run_dir: str) -> None:
        epoch = next(self._starts)
        self._restarts = max(0, epoch + 1 - len(self._units))
        if unit.module == ENGINE:
            self._epoch = epoch
            self._waits_for_hosts = False
        if unit.module == API or self._hosts is None:
            self._start_children(unit, run_dir, Place(file=f"{run_dir}/ranks-{epoch}"))
            return
        address = self._hosts.address
        with meeting_socket(address) as meeting:
            port = meeting.getsockname()[1]
            place = Place("", address, port, address, meeting.fileno())
            self._start_children(unit, run_dir, place)
            self._hosts.start(epoch, port)

    def _start_children(self, unit: Unit, run_dir: str, place: Place) -> None:
        listener_fds = []
        if unit.module == API:
            listener_fds = [sockets[unit.first_rank].fileno() for sockets in self._listeners]
        inherited = [*listener_fds, *([place.listener_fd] if place.listener_fd >= 0 else [])]
        for rank, name in enumerate(unit.names, unit.first_rank):
            assignment = Assignment(
                name=name,
                settings=self._settings.model_dump(mode="json"),
                checkpoint=str(self._checkpoint),
                run_dir=run_dir,
                listener_fds=listener_fds,
                address=self._listeners[0].address,
                rank=rank,
                place=place,
                restarts=self._restarts,
            )
            self._children.start(unit.module, assignment, inherited)

    def _stop(self, status: int) -> None:
        """Ends the API, so that clients hear of it, then the engine, on other hosts first. A second
        signal kills them."""
        on_signal(lambda _: self._children.kill_all())
        for listeners in self._listeners:
            listeners.close()  # or connections would wait for a process that does not come
        self._stop_all(API)
        if self._hosts is not None:
            self._hosts.end(status, "it gave up" if status else "it was told to")
        self._stop_all(ENGINE)

    def _stop_all(self, module: str) -> None:
        """All at once: what one has open does not shorten the time of another."""
        settings, signum = self._settings, signal.SIGTERM
        deadline_s = time.monotonic() + settings.shutdown_timeout_s
        if module == API and self._drains:
            signum = DRAIN
            deadline_s += settings.drain_grace_s + settings.drain_timeout_s
        names = [name for unit in self._units if unit.module == module for name in unit.names]
        self._children.terminate(names, deadline_s, signum)
