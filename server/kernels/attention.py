"""Paged attention: what the language model asks of a kernel, whichever kernel runs here.

A KV cache is blocks of `block_size` positions in one layout for all backends; a sequence owns the
blocks that its block table names. An `AttentionBatch` is the rows of one step: it is built once and
used by every layer, so a layer does no work that depends on lengths alone. In each layer the keys
and values of all rows are written before any row attends: a row may read blocks that another row of
the same step writes.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol, Self

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class KVCache:
    """Keys and values of all layers, each [layers, blocks, block_size, kv_heads, head_dim]."""

    keys: Tensor
    values: Tensor

    @classmethod
    def allocate(
        cls,
        *,
        num_layers: int,
        num_blocks: int,
        block_size: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> KVCache:
        shape = (num_layers, num_blocks, block_size, num_kv_heads, head_dim)
        return cls(
            keys=_zeros(shape, dtype, device),
            values=_zeros(shape, dtype, device),
        )

    @property
    def block_size(self) -> int:
        return self.keys.shape[2]

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer by position in the cache: block * block_size + offset."""
        return self.keys[index].flatten(0, 1), self.values[index].flatten(0, 1)


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    size_bytes = prod(shape) * dtype.itemsize
    if device.type != "cpu" or size_bytes == 0:
        return torch.zeros(shape, dtype=dtype, device=device)
    # Pages of the system are zeros, and memory only once they are written: no second is spent on
    # gigabytes at the start, and few requests take little.
    pages = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(pages, dtype=dtype).view(shape)


class AttentionBatch(Protocol):
    """The rows of one step, flattened to T = sum(query_lens) tokens, as a backend prepared them.

    A backend is a class with this interface, chosen once at start.
    """

    @property
    def positions(self) -> Tensor:
        """Position of each token in its sequence: [T] int64."""

    @property
    def kv_indices(self) -> Tensor:
        """Where in the cache each token's key and value go: [T] int64."""

    @classmethod
    def build(
        cls,
        cache: KVCache,
        *,
        positions: Tensor,
        kv_indices: Tensor,
        query_lens: Sequence[int],
        context_lens: Sequence[int],
        block_tables: Tensor,
    ) -> Self:
        """Prepares a step.

        Args:
            positions: [T] int64.
            kv_indices: [T] int64, where in the cache each token's key and value go.
            query_lens: new tokens of each row, at least 1.
            context_lens: tokens of each row that have KV after this step, the new ones included.
            block_tables: [rows, blocks]; entries past a row's context are never looked at.
        """

    def write_and_attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, cache: KVCache
    ) -> Tensor:
        """Writes `k` and `v` [T, kv_heads, head_dim] of all rows, then lets each token of `q`
        [T, heads, head_dim] see positions 0 up to its own. Each KV head serves `heads / kv_heads`
        consecutive query heads. Returns [T, heads, head_dim]."""

    def attend(self, layer: int, q: Tensor, cache: KVCache) -> Tensor:
        """The same where keys and values of all rows are written already."""


class DecodeBatch(AttentionBatch, Protocol):
    """A backend whose decode steps can be captured in a graph."""

    @classmethod
    def decode(
        cls,
        *,
        positions: Tensor,
        kv_indices: Tensor,
        block_tables: Tensor,
        longest_context: int,
    ) -> Self:
        """Prepares a step of one token a row without looking at any value.

        Args:
            longest_context: bound of all contexts that this step may ever be repeated with.
        """


def write(cache: KVCache, layer: int, kv_indices: Tensor, k: Tensor, v: Tensor) -> None:
    """Puts `k` and `v` [T, kv_heads, head_dim] where `kv_indices` [T] says."""
    keys, values = cache.layer(layer)
    keys.index_copy_(0, kv_indices, k)
    values.index_copy_(0, kv_indices, v)


class WritesFirst:
    """Of an `AttentionBatch` whose `attend` reads all keys and values from the cache."""

    __slots__ = ()

    def write_and_attend(
        self: AttentionBatch, layer: int, q: Tensor, k: Tensor, v: Tensor, cache: KVCache
    ) -> Tensor:
        write(cache, layer, self.kv_indices, k, v)
        return self.attend(layer, q, cache)


def row_ends(lengths: Sequence[int], device: torch.device) -> Tensor:
    """Where rows of these lengths begin, and the end of the last: [rows + 1] int32."""
    ends = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    return ends.to(device, non_blocking=True)
