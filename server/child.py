"""What every child process of the supervisor does first, and how it ends.

A child reads its assignment as one line of JSON on standard input, which then stays open: when it
closes, the supervisor is gone, and the child goes at once. A child that would fail again in the
same way says why and ends with `EXIT_REFUSED`, so that it is not started again.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import msgspec

from server import logs
from server.distributed.place import Place
from server.errors import CheckpointError, StartupError
from server.settings import Settings

EXIT_REFUSED = 78

DRAIN = signal.SIGUSR1
"""Tells the API process to finish what is open; SIGTERM tells every child to end now. Both end a
child silently that is still being imported."""

log = logging.getLogger(__name__)


class Assignment(msgspec.Struct, frozen=True):
    """What a child needs to know."""

    name: str
    settings: dict[str, Any]
    checkpoint: str
    """Folder of the model."""
    run_dir: str
    """Private directory of this daemon, for sockets."""
    listener_fds: list[int] = []
    """Bound TCP sockets of an API process, inherited: the public one, perhaps one for operators."""
    address: str = ""
    """Where clients reach the daemon, for people to read."""
    rank: int = 0
    """Of the ranks of an engine, or place among the API processes."""
    place: Place = Place()
    """Where the ranks of this start meet."""
    restarts: int = 0
    """Children that have been started again so far."""

    def parsed_settings(self) -> Settings:
        return Settings(**self.settings)


def run_child(run: Callable[[Assignment], None]) -> None:
    """Reads the assignment and runs it to its end."""
    assignment = msgspec.json.decode(sys.stdin.readline(), type=Assignment)
    threading.Thread(target=_die_with_supervisor, daemon=True).start()
    settings = assignment.settings
    logs.configure(settings["log_level"], assignment.name, settings["log_format"])
    # What has been imported stays. Looking through it for garbage would now and then hold streams
    # up for tens of milliseconds.
    gc.freeze()
    try:
        run(assignment)
    except (CheckpointError, StartupError) as error:
        log.error("%s", error)
        sys.exit(EXIT_REFUSED)


def _die_with_supervisor() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)
