"""Fills parameters from files: threads read large pieces, each through a buffer of its own.

Parameters are settled one after another in the order given, the same on every rank, while pieces of
the next are being read. Host memory beside the parameters is `THREADS` buffers.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from server.model.checkpoint import Part
from server.model.stored import DTYPES, Stored

THREADS = 8
PIECE_BYTES = 16 * 2**20
AHEAD_BYTES = 2**28
"""What may be on its way behind the parameter that is settled next."""


@dataclass(frozen=True, slots=True)
class Progress:
    done_bytes: int
    total_bytes: int
    elapsed_s: float

    @property
    def bytes_s(self) -> float:
        return self.done_bytes / max(self.elapsed_s, 1e-9)

    @property
    def left_s(self) -> float:
        return (self.total_bytes - self.done_bytes) / max(self.bytes_s, 1.0)


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of a stored tensor, and where they go."""

    stored: Stored
    part: Part
    rows: range

    @property
    def size_bytes(self) -> int:
        return len(self.rows) * self.stored.row_bytes

    def copy(self, buffer: Tensor) -> None:
        part, target = self.part, self.part.target
        first = 0 if part.dim else part.start
        target = target[self.rows.start - first : self.rows.stop - first]
        if self._fits(target):
            buffer = target.view(torch.uint8).flatten()
        values = self.stored.rows(self.rows, buffer)
        if part.dim:
            values = values.narrow(part.dim, part.start, target.shape[part.dim])
        if values.data_ptr() != target.data_ptr():
            target.copy_(values)

    def _fits(self, target: Tensor) -> bool:
        """Whether the bytes of the file are those of the target, so that they are read into it."""
        same = target.dtype == DTYPES[self.stored.dtype] and not self.part.dim
        return same and target.is_contiguous() and target.device.type == "cpu"


@dataclass(frozen=True, slots=True)
class Job:
    """A parameter to fill."""

    sources: Sequence[tuple[Stored, Part]]
    begin: Callable[[], None] | None = None
    """Called before the first piece."""
    settle: Callable[[], None] | None = None
    """Called after the last piece, in the order of the jobs."""

    def pieces(self) -> Iterator[Piece]:
        for stored, part in self.sources:
            yield from _pieces(stored, part)

    @property
    def size_bytes(self) -> int:
        return sum(len(_needed(s, p)) * s.row_bytes for s, p in self.sources)


def _needed(stored: Stored, part: Part) -> range:
    """Whole rows: what is cut across them is not worth a read for each."""
    if part.dim:
        return range(stored.shape[0])
    return range(part.start, part.start + len(part.target))


def _pieces(stored: Stored, part: Part) -> Iterator[Piece]:
    needed, count = _needed(stored, part), max(1, PIECE_BYTES // stored.row_bytes)
    for first in range(needed.start, needed.stop, count):
        yield Piece(stored, part, range(first, min(first + count, needed.stop)))


class Readers:
    """The threads and their buffers."""

    def __init__(self, *, pinned: bool) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="reader")
        self._buffers = threading.local()
        self._pinned = pinned

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def submit(self, piece: Piece) -> Future[None]:
        return self._pool.submit(self._copy, piece)

    def _copy(self, piece: Piece) -> None:
        buffer: Tensor | None = getattr(self._buffers, "buffer", None)
        if buffer is None or len(buffer) < piece.size_bytes:
            size = max(PIECE_BYTES, piece.size_bytes)
            buffer = torch.empty(size, dtype=torch.uint8, pin_memory=self._pinned)
            self._buffers.buffer = buffer
        piece.copy(buffer)


def read_all(
    jobs: Iterable[Job], readers: Readers, progress: Callable[[Progress], None] | None = None
) -> None:
    """Fills and settles all parameters.

    Raises:
        CheckpointError: a file cannot be read.
    """
    jobs, started = list(jobs), time.monotonic()
    total = sum(job.size_bytes for job in jobs)
    waiting: deque[tuple[Job, list[Future[None]]]] = deque()
    ahead = done = 0

    def settle() -> None:
        nonlocal ahead, done
        job, copies = waiting.popleft()
        for copy in copies:
            copy.result()
        if job.settle:
            job.settle()
        ahead, done = ahead - job.size_bytes, done + job.size_bytes
        if progress:
            progress(Progress(done, total, time.monotonic() - started))

    for job in jobs:
        if job.begin:
            job.begin()
        waiting.append((job, [readers.submit(piece) for piece in job.pieces()]))
        ahead += job.size_bytes
        while len(waiting) > 1 and ahead > AHEAD_BYTES:
            settle()
    while waiting:
        settle()
