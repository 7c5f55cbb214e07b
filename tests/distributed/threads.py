"""Ranks as threads of one process: quick to start, and they must agree like real ones."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from torch import Tensor

from server.distributed.groups import Groups, Link
from server.distributed.peers import Peers
from server.model.stages import peers_of

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


class ThreadLink:
    """A queue that fails when nothing comes."""

    def __init__(self) -> None:
        self._sent: queue.SimpleQueue[Tensor] = queue.SimpleQueue()

    def send(self, x: Tensor) -> None:
        self._sent.put(x.clone())

    def receive(self, into: Tensor) -> Tensor:
        sent = self._sent.get(timeout=TIMEOUT_S)
        assert (sent.shape, sent.dtype) == (into.shape, into.dtype)
        return into.copy_(sent)


class Switchboard:
    """Makes groups by their members and links by their ends, each once."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._meetings: dict[tuple[str, tuple[int, ...]], Meeting] = {}
        self._links: dict[tuple[str, int, int], ThreadLink] = {}

    def _group(self, name: str, members: Sequence[int], rank: int) -> ThreadGroup:
        meeting = self._meetings.setdefault((name, tuple(members)), Meeting(len(members)))
        return ThreadGroup(meeting, members.index(rank))

    def _link(self, name: str, sender: int | None, receiver: int | None) -> Link | None:
        if sender is None or receiver is None:
            return None
        return self._links.setdefault((name, sender, receiver), ThreadLink())

    def groups(self, rank: int, peers: Peers) -> Groups:
        return Groups(
            world=self._group("world", range(self._size), rank),
            model=self._group("model", peers.model, rank),
            vision=self._group("vision", peers.vision, rank),
            towers=self._group("towers", peers.towers, rank),
            previous=self._link("hidden", peers.previous, rank),
            next=self._link("hidden", rank, peers.next),
            tokens=self._link("tokens", peers.tokens_from, rank)
            or self._link("tokens", rank, peers.tokens_to),
        )


def make_groups(size: int, vision_tp: int, stages: int = 1) -> list[Groups]:
    """Groups of each rank, for `stages` stages of `size` ranks."""
    board = Switchboard(size * stages)
    peers = [peers_of(rank, size, vision_tp, stages) for rank in range(size * stages)]
    return [board.groups(rank, own) for rank, own in enumerate(peers)]


def run_ranks(
    size: int, vision_tp: int, work: Callable[[int, Groups], T], *, stages: int = 1
) -> list[T]:
    """Results of `work(rank, groups)` of all ranks; the first failure is raised."""
    groups = make_groups(size, vision_tp, stages)

    def run(rank: int) -> T:
        try:
            return work(rank, groups[rank])
        except BaseException:
            groups[rank].model.abort()  # type: ignore[attr-defined]
            raise

    with ThreadPoolExecutor(size * stages) as pool:
        results = [pool.submit(run, rank) for rank in range(size * stages)]
    failures = [failure for result in results if (failure := result.exception())]
    for failure in failures:
        if not isinstance(failure, threading.BrokenBarrierError):
            raise failure
    return [result.result() for result in results]
