"""Where ranks find each other, and how their groups are made there.

Ranks of one host meet in a file and listen on the loopback device; those of several hosts meet at
a store of the leader's host and listen on the address by which that host reaches them. Either way
nothing listens anywhere else. A meeting serves one start of the ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch.distributed

from server.distributed.groups import SOLO, Backend, Group, Groups, Link, TorchGroup, TorchLink
from server.distributed.peers import Peers
from server.distributed.place import Place

C10D: Any = torch.distributed
"""Its classes written in C++ are exported without types."""

MEETING_S = 60.0
"""Least patience with ranks that are still being started."""


class Meeting:
    """The meeting of `size` ranks, seen by rank `rank`.

    Args:
        backend: nccl on GPUs, gloo on CPUs.
        timeout_s: longest wait for each other in a collective.
    """

    def __init__(self, place: Place, rank: int, size: int, backend: str, timeout_s: float) -> None:
        self._rank = rank
        self._size = size
        self._backend = backend
        self._timeout = timedelta(seconds=timeout_s)
        self._address = place.own_address
        self._store = self._open(place)

    def _open(self, place: Place) -> Any:
        patience = max(self._timeout, timedelta(seconds=MEETING_S))
        if place.file:
            store = C10D.FileStore(place.file, self._size)
            store.set_timeout(patience)
            return store
        return C10D.TCPStore(
            place.host,
            place.port,
            is_master=self._rank == 0,
            timeout=patience,
            wait_for_workers=False,
            master_listen_fd=place.listener_fd if self._rank == 0 else None,
        )

    def tell(self, key: str, value: str) -> None:
        """Leaves a note for the other ranks."""
        self._store.set(key, value)

    def ask(self, key: str) -> str:
        """Waits for a note."""
        note: bytes = self._store.get(key)
        return note.decode()

    @property
    def address(self) -> str:
        """Where this rank may listen."""
        return self._address

    def join(self, peers: Peers) -> Groups:
        """Makes this rank's groups; returns when all their members are there."""
        rank = self._rank
        return Groups(
            world=self._group("world", range(self._size)),
            model=self._group("model", peers.model),
            vision=self._group("vision", peers.vision),
            towers=self._group("towers", peers.towers),
            # In this order no ring of stages waits for itself.
            previous=self._link("hidden", peers.previous, rank),
            next=self._link("hidden", rank, peers.next),
            tokens=self._link("tokens", peers.tokens_from, rank)
            or self._link("tokens", rank, peers.tokens_to),
        )

    def _group(self, name: str, ranks: Sequence[int]) -> Group:
        return TorchGroup(self._make(name, ranks)) if len(ranks) > 1 else SOLO

    def _link(self, name: str, sender: int | None, receiver: int | None) -> Link | None:
        if sender is None or receiver is None:
            return None
        return TorchLink(self._make(name, (sender, receiver)))

    def _make(self, name: str, ranks: Sequence[int]) -> Backend:
        store = C10D.PrefixStore(f"{name}-{'-'.join(map(str, ranks))}", self._store)
        index, size = ranks.index(self._rank), len(ranks)
        options: Any
        if self._backend == "nccl":
            options = C10D.ProcessGroupNCCL.Options()
            options._timeout = self._timeout
            nccl: Backend = C10D.ProcessGroupNCCL(store, index, size, options)
            return nccl
        options = C10D.ProcessGroupGloo._Options()
        options._timeout = self._timeout
        # Without a device gloo listens wherever the name of the host leads.
        options._devices = [C10D.ProcessGroupGloo.create_device(hostname=self._address)]
        gloo: Backend = C10D.ProcessGroupGloo(store, index, size, options)
        return gloo
