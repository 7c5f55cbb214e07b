"""A process's pulse: one number in a file that other processes read without asking anybody.

A rank's loop writes the time of each turn, also of the idle ones, into a page of shared memory; API
processes that share a port do the like. Whoever wants to know whether a loop stands still compares
that with the clock, which all processes of a machine share; a process that hangs, is stopped or
spins inside a library cannot pretend.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from pathlib import Path
from typing import Self

TURN_S = 1.0
"""An idle loop turns at least this often."""

_STAMP = struct.Struct("d")
_NONE = 0.0


class Heartbeat:
    """The pulse of the engine that uses `run_dir`, or of another process with its name."""

    def __init__(self, run_dir: Path, name: str = "engine") -> None:
        path = run_dir / f"{name}.heartbeat"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Not a hole: a disk that is full by then would end whoever fills it.
            os.posix_fallocate(descriptor, 0, mmap.PAGESIZE)
            self._page = mmap.mmap(descriptor, mmap.PAGESIZE)
        finally:
            os.close(descriptor)

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
