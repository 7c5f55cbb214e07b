"""Ranks as threads of one process: quick to start, and they must agree like real ones."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from torch import Tensor

from server.distributed.groups import Groups

T = TypeVar("T")

TIMEOUT_S = 60


class Meeting:
    """What the threads of a group share."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.barrier = threading.Barrier(size, timeout=TIMEOUT_S)
        self.brought: list[Tensor | None] = [None] * size


class ThreadGroup:
    """A rank's view of a meeting."""

    def __init__(self, meeting: Meeting, rank: int) -> None:
        self._meeting = meeting
        self.size = meeting.size
        self.rank = rank

    def abort(self) -> None:
        """Lets the others fail instead of waiting."""
        self._meeting.barrier.abort()

    def sum(self, x: Tensor) -> Tensor:
        first, *others = self.gather(x)
        total = first.clone()
        for part in others:
            total += part
        return x.copy_(total)

    def gather(self, x: Tensor) -> list[Tensor]:
        self._meeting.brought[self.rank] = x.clone()
        self._meeting.barrier.wait()
        parts = [part for part in self._meeting.brought if part is not None]
        self._meeting.barrier.wait()
        assert len(parts) == self.size
        assert len({part.shape for part in parts}) == 1, "ranks brought different shapes"
        return parts


def make_groups(size: int, vision_tp: int) -> list[Groups]:
    """Groups of each rank."""
    model = Meeting(size)
    vision = [Meeting(vision_tp) for _ in range(size // vision_tp)]
    towers = [Meeting(size // vision_tp) for _ in range(vision_tp)]
    return [
        Groups(
            model=ThreadGroup(model, rank),
            vision=ThreadGroup(vision[rank // vision_tp], rank % vision_tp),
            towers=ThreadGroup(towers[rank % vision_tp], rank // vision_tp),
        )
        for rank in range(size)
    ]


def run_ranks(size: int, vision_tp: int, work: Callable[[int, Groups], T]) -> list[T]:
    """Results of `work(rank, groups)` of all ranks; the first failure is raised."""
    groups = make_groups(size, vision_tp)

    def run(rank: int) -> T:
        try:
            return work(rank, groups[rank])
        except BaseException:
            groups[rank].model.abort()  # type: ignore[attr-defined]
            raise

    with ThreadPoolExecutor(size) as pool:
        results = [pool.submit(run, rank) for rank in range(size)]
    failures = [failure for result in results if (failure := result.exception())]
    for failure in failures:
        if not isinstance(failure, threading.BrokenBarrierError):
            raise failure
    return [result.result() for result in results]
