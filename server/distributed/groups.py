"""Groups of ranks, and the few collectives that the model needs.

A model asks its group, not torch, so that one rank alone runs the same code without a process
group. Every rank issues the collectives of a plan in the same order. Groups are made from names
and members alone; torch's global process group is not used.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

SENDS_MAX = 16
"""Sends that may be on their way before the sender waits for the oldest; more than a pipeline ever
has steps in flight, so it bounds memory and delays nobody."""


class Group(Protocol):
    """Some ranks, of which this process is one."""

    @property
    def size(self) -> int: ...

    @property
    def rank(self) -> int:
        """Of this process in the group."""

    def sum(self, x: Tensor) -> Tensor:
        """The sum of every rank's `x`, which is overwritten."""

    def gather(self, x: Tensor) -> list[Tensor]:
        """Every rank's `x`, all of one shape, in the order of the ranks."""


class Link(Protocol):
    """A way from one rank to another. What is sent first is received first."""

    def send(self, x: Tensor) -> None:
        """Starts sending; `x` must not change any more."""

    def receive(self, into: Tensor) -> Tensor:
        """Fills `into`, which has the shape and type of what was sent, and returns it."""


class Work(Protocol):
    """Something on its way."""

    def wait(self) -> object: ...


class Backend(Protocol):
    """What torch's NCCL and gloo have in common."""

    def size(self) -> int: ...

    def rank(self) -> int: ...

    def allreduce(self, tensors: list[Tensor], /) -> Work: ...

    def allgather(self, outputs: list[list[Tensor]], inputs: list[Tensor], /) -> Work: ...

    def send(self, tensors: list[Tensor], to: int, tag: int, /) -> Work: ...

    def recv(self, tensors: list[Tensor], source: int, tag: int, /) -> Work: ...


class Solo:
    """A group of one."""

    size = 1
    rank = 0

    def sum(self, x: Tensor) -> Tensor:
        return x

    def gather(self, x: Tensor) -> list[Tensor]:
        return [x]


SOLO = Solo()


class TorchGroup:
    """A group of torch.distributed."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.size = backend.size()
        self.rank = backend.rank()

    def sum(self, x: Tensor) -> Tensor:
        if x.numel():
            self._backend.allreduce([x]).wait()
        return x

    def gather(self, x: Tensor) -> list[Tensor]:
        parts = [torch.empty_like(x) for _ in range(self.size)]
        self._backend.allgather([parts], [x.contiguous()]).wait()
        return parts


class TorchLink:
    """A link over a backend of two ranks, the sender first."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._sends: deque[tuple[Tensor, Work]] = deque()

    def send(self, x: Tensor) -> None:
        x = x.contiguous()
        # What is on its way must stay where it is until it has gone.
        self._sends.append((x, self._backend.send([x], 1, 0)))
        if len(self._sends) > SENDS_MAX:
            self._sends.popleft()[1].wait()

    def receive(self, into: Tensor) -> Tensor:
        self._backend.recv([into], 0, 0).wait()
        return into


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups and links that this rank belongs to."""

    world: Group = SOLO
    """All ranks."""
    model: Group = SOLO
    """Those of this rank's stage: they share its layers of the language model."""
    vision: Group = SOLO
    """Ranks that share a vision tower."""
    towers: Group = SOLO
    """One rank of each vision group, those with this rank's part of the tower."""
    previous: Link | None = None
    """Hidden states of the stage before."""
    next: Link | None = None
    """To the stage behind."""
    tokens: Link | None = None
    """Drawn tokens, from the last stage to the first."""
