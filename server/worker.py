"""The supervisor of a host that is not the head: runs ranks when the head says so.

It waits for the head up to `--join-timeout-s`, says so every ten seconds, and ends with
`EXIT_NO_HEAD` when that passes. When the head is lost it ends its ranks and waits again; when the
head ends, it ends with the same status. So a group comes and goes as one, whether something else
starts hosts again or nobody does.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import signal
import socket
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server import __version__
from server.child import Assignment
from server.children import ENGINE, Children, Exited, Signalled, on_signal
from server.distributed.place import Place
from server.hosts import RETRY_S, digest, shared
from server.link import End, Failed, FromHead, Join, Line, LineLostError, Start, Stop
from server.settings import Settings
from server.watchdog import Watchdog

EXIT_NO_HEAD = 75
"""`EX_TEMPFAIL`: starting again later may help."""

CONNECT_S = 5.0
SAY_EVERY_S = 10.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LostHead:
    what: str


class Worker:
    """Runs this host's ranks."""

    def __init__(self, settings: Settings, checkpoint: Path) -> None:
        self._settings = settings
        self._checkpoint = checkpoint
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._children = Children(self._events)
        local = settings.ranks // settings.nnodes
        first = settings.node_rank * local
        self._ranks = {f"rank-{rank}": rank for rank in range(first, first + local)}
        self._epoch = -1

    def run(self) -> int:
        """Serves until a signal, the head's end, or a head that does not come; returns the exit
        status."""
        on_signal(lambda signum: self._events.put(Signalled(signum)))
        with (
            tempfile.TemporaryDirectory(prefix="internvl-serve-") as run_dir,
            Watchdog(Path(run_dir), [self._ranks], self._settings.step_timeout_s) as watchdog,
        ):
            try:
                while True:
                    line = self._reach_head()
                    if isinstance(line, int):
                        return line
                    status = self._serve(line, run_dir, watchdog)
                    line.close()
                    if status is not None:
                        return status
            finally:
                on_signal(lambda _: self._children.kill_all())
                deadline_s = time.monotonic() + self._settings.shutdown_timeout_s
                self._children.terminate(self._ranks, deadline_s)

    def _reach_head(self) -> Line[FromHead] | int:
        """A line to the head, or the status to end with."""
        settings = self._settings
        begin_s = time.monotonic()
        said_s = begin_s - SAY_EVERY_S
        while True:
            try:
                address = (settings.master_addr or "", settings.master_port)
                connection = socket.create_connection(address, timeout=CONNECT_S)
                return Line(connection, FromHead)  # type: ignore[arg-type]
            except OSError as error:
                fault = error.strerror or str(error)
            now_s = time.monotonic()
            if now_s - begin_s > settings.join_timeout_s:
                log.error("the head did not come within %.0f s: giving up", now_s - begin_s)
                return EXIT_NO_HEAD
            if now_s - said_s >= SAY_EVERY_S:
                said_s = now_s
                log.info(
                    "waiting for the head at %s, port %d (%s): %.0f s of %.0f s",
                    *address,
                    fault,
                    now_s - begin_s,
                    settings.join_timeout_s,
                )
            try:
                if isinstance(self._events.get(timeout=RETRY_S), Signalled):
                    return 0
            except queue.Empty:
                pass

    def _serve(self, line: Line[FromHead], run_dir: str, watchdog: Watchdog) -> int | None:
        """Does what the head says; None when it is lost."""
        settings = self._settings
        model = digest(settings, self._checkpoint)
        line.send(Join(settings.node_rank, __version__, model, shared(settings)))
        threading.Thread(target=self._read, args=(line,), daemon=True).start()
        while True:
            match self._next_event(watchdog):
                case Start(epoch, host, port):
                    self._end_ranks(watchdog)
                    self._start(epoch, Place("", host, port, line.own_address), run_dir)
                case Stop():
                    self._end_ranks(watchdog)
                case End(status, reason):
                    self._end_ranks(watchdog)
                    log.info("the head ends: %s", reason)
                    return status
                case LostHead(what):
                    self._end_ranks(watchdog)
                    log.error("lost the head at %s: %s", line.address, what)
                    return None
                case Exited() as exited if not self._children.expected(exited):
                    log.error("%s", exited)
                    watchdog.mention_silent()
                    self._end_ranks(watchdog)
                    line.send(Failed(self._epoch, str(exited), exited.refused))
                case Signalled(signum):
                    log.info("%s: ending", signal.Signals(signum).name)
                    return 0

    def _next_event(self, watchdog: Watchdog) -> Any:
        """Looks at the ranks until something happens."""
        while True:
            watchdog.abort_stopped(self._children)
            with contextlib.suppress(queue.Empty):
                return self._events.get(timeout=watchdog.look_s)

    def _end_ranks(self, watchdog: Watchdog) -> None:
        self._children.kill(self._ranks)
        watchdog.forget()

    def _read(self, line: Line[FromHead]) -> None:
        try:
            while True:
                message = line.receive()
                self._events.put(message)
                if isinstance(message, End):
                    return
        except LineLostError as lost:
            self._events.put(LostHead(str(lost)))

    def _start(self, epoch: int, place: Place, run_dir: str) -> None:
        self._epoch = epoch
        for name, rank in self._ranks.items():
            assignment = Assignment(
                name=name,
                settings=self._settings.model_dump(mode="json"),
                checkpoint=str(self._checkpoint),
                run_dir=run_dir,
                rank=rank,
                place=place,
            )
            self._children.start(ENGINE, assignment)
