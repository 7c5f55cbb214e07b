"""A process's pulse: one number in a file that other processes read without asking anybody.

A rank's loop writes the time of each turn, also of the idle ones, into a page of shared memory; API
processes that share a port do the like. Whoever wants to know whether a loop stands still compares
that with the clock, which all processes of a machine share; a process that hangs, is stopped or
spins inside a library cannot pretend.
"""

from __future__ import annotations

import mmap
import struct
import time
from pathlib import Path
from typing import Self

from server.mapped import map_file

TURN_S = 1.0
"""An idle loop turns at least this often."""

_STAMP = struct.Struct("d")
_NONE = 0.0


class Heartbeat:
    """The pulse of the engine that uses `run_dir`, or of another process with its name."""

    def __init__(self, run_dir: Path, name: str = "engine") -> None:
        self._page = map_file(run_dir / f"{name}.heartbeat", mmap.PAGESIZE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._page.close()

    def beat(self) -> None:
        """The loop has turned."""
        _STAMP.pack_into(self._page, 0, time.monotonic())

    def forget(self) -> None:
        """No loop is running: it is being started, or has ended."""
        _STAMP.pack_into(self._page, 0, _NONE)

    @property
    def beats(self) -> bool:
        """Whether a loop is running, or was until it died."""
        return bool(_STAMP.unpack_from(self._page, 0)[0] != _NONE)

    @property
    def age_s(self) -> float:
        """Seconds since the last turn of a running loop; 0 where none is running."""
        (stamp,) = _STAMP.unpack_from(self._page, 0)
        return 0.0 if stamp == _NONE else max(0.0, time.monotonic() - stamp)
