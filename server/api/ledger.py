"""What keys have used where several API processes count it: buckets in memory that all of them map.

A bucket is read and written in one go, so it is changed by one process at a time. A turn takes
microseconds, and whoever dies in it gives it back. A process that is stopped in its turn is not
waited for: that a request is counted once too few is better than a daemon that stands still.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from server.board import Cells, Tally
from server.mapped import map_file

ACCOUNTS_MAX = 4096
ID_BYTES = 16
PATIENCE_S = 0.005

_CELL_BYTES = 8
_BUCKET_CELLS = 2
_BUCKETS = 2


@dataclass(frozen=True, slots=True)
class Entry:
    """Where an account's numbers are."""

    requests: Cells[float]
    tokens: Cells[float]
    concurrent: Tally


class Ledger:
    """The accounts of the daemon that uses `run_dir`.

    Args:
        processes: that share it.
        own: place of this one; what a former process in its place held is given back.
    """

    def __init__(self, run_dir: Path, processes: int, own: int) -> None:
        self._own = own
        ids_bytes = ACCOUNTS_MAX * ID_BYTES
        buckets_bytes = ACCOUNTS_MAX * _BUCKETS * _BUCKET_CELLS * _CELL_BYTES
        column_bytes = ACCOUNTS_MAX * _CELL_BYTES
        path = run_dir / "quotas"
        size_bytes = _CELL_BYTES + ids_bytes + buckets_bytes + processes * column_bytes
        memory = memoryview(map_file(path, size_bytes))
        self._used = memory[:_CELL_BYTES].cast("q")
        rest = memory[_CELL_BYTES:]
        self._ids, rest = rest[:ids_bytes], rest[ids_bytes:]
        self._buckets, columns = rest[:buckets_bytes].cast("d"), rest[buckets_bytes:]
        columns[own * column_bytes : (own + 1) * column_bytes] = bytes(column_bytes)
        self._concurrent = columns.cast("q")
        self._lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self._lock)

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Nobody else changes a bucket meanwhile."""
        mine, give_up_at = self._try(), time.monotonic() + PATIENCE_S
        while not mine and time.monotonic() < give_up_at:
            os.sched_yield()
            mine = self._try()
        try:
            yield
        finally:
            if mine:
                fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _try(self) -> bool:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def entry(self, id: bytes) -> Entry | None:
        """Finds or opens an account, in a turn; None where there are too many.

        Args:
            id: of the key and its limits, `ID_BYTES` long.
        """
        place = next((p for p in range(self._used[0]) if self._id(p) == id), None)
        if place is None:
            place = self._used[0]
            if place == ACCOUNTS_MAX:
                return None
            self._ids[place * ID_BYTES : (place + 1) * ID_BYTES] = id
            self._used[0] = place + 1
        at = place * _BUCKETS * _BUCKET_CELLS
        return Entry(
            self._buckets[at : at + _BUCKET_CELLS],
            self._buckets[at + _BUCKET_CELLS : at + 2 * _BUCKET_CELLS],
            Tally(self._concurrent[place::ACCOUNTS_MAX], self._own),
        )

    def _id(self, place: int) -> memoryview:
        return self._ids[place * ID_BYTES : (place + 1) * ID_BYTES]
