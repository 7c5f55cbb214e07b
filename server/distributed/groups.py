"""Groups of ranks and the few collectives that the model needs.

A model asks its group, not torch, so that one rank alone runs the same code without a process
group. Every rank issues the collectives of a plan in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor


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

    def __init__(self, group: dist.ProcessGroup) -> None:
        self._group = group
        self.size = group.size()
        self.rank = group.rank()

    def sum(self, x: Tensor) -> Tensor:
        dist.all_reduce(x, group=self._group)
        return x

    def gather(self, x: Tensor) -> list[Tensor]:
        parts = [torch.empty_like(x) for _ in range(self.size)]
        dist.all_gather(parts, x.contiguous(), group=self._group)
        return parts


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups that this rank belongs to."""

    model: Group = SOLO
    """All ranks: they share the language model."""
    vision: Group = SOLO
    """Ranks that share a vision tower."""
    towers: Group = SOLO
    """One rank of each vision group, those with this rank's part of the tower."""


def join(
    rank: int, size: int, vision_tp: int, *, backend: str, address: str, timeout_s: float
) -> Groups:
    """Meets the other ranks; returns when all are there.

    Args:
        address: where they meet, as `tcp://host:port`; rank 0 listens there.
        backend: nccl on GPUs, gloo on CPUs.
        timeout_s: longest wait for each other, here and in any collective.
    """
    timeout = timedelta(seconds=timeout_s)
    dist.init_process_group(
        backend, init_method=address, rank=rank, world_size=size, timeout=timeout
    )
    vision = [range(first, first + vision_tp) for first in range(0, size, vision_tp)]
    towers = [range(first, size, vision_tp) for first in range(vision_tp)]
    return Groups(
        model=TorchGroup(dist.group.WORLD) if dist.group.WORLD else SOLO,
        vision=_own_group(rank, vision, timeout),
        towers=_own_group(rank, towers, timeout),
    )


def _own_group(rank: int, groups: Sequence[range], timeout: timedelta) -> Group:
    """Makes all groups, as every rank must in the same order; returns the one with this rank."""
    own: Group = SOLO
    for ranks in groups:
        if len(ranks) == 1:
            continue
        group = dist.new_group(list(ranks), timeout=timeout)
        if rank in ranks:
            own = TorchGroup(group)
    return own
