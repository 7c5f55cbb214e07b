"""Paged attention through flash-attn 3, which is made for Hopper.

One entry for rows of any length, as in `flash`; lengths of contexts are per row here, not ends, and
a page may have any size. The package has two names, by where it comes from.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from server.kernels.attention import KVCache, WritesFirst, row_ends

BLOCK_SIZE = 128
"""A tile of keys: pages of whole tiles are read by the copy engine."""


def _interface() -> Any:
    try:
        return importlib.import_module("flash_attn_3.flash_attn_interface")
    except ModuleNotFoundError:
        return importlib.import_module("flash_attn_interface")


flash_attn_with_kvcache = _interface().flash_attn_with_kvcache


@dataclass(frozen=True, slots=True)
class Flash3Batch(WritesFirst):
    """An `AttentionBatch`; arguments and shapes are described there."""

    positions: Tensor
    kv_indices: Tensor
    query_ends: Tensor
    """Where each row's tokens begin, and the end of the last: [rows + 1] int32."""
    contexts: Tensor
    """[rows] int32."""
    longest_query: int
    block_tables: Tensor
    """[rows, blocks] int32."""

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
    ) -> Flash3Batch:
        blocks = -(-max(context_lens) // cache.block_size)
        contexts = torch.tensor(context_lens, dtype=torch.int32)
        return cls(
            positions=positions,
            kv_indices=kv_indices,
            query_ends=row_ends(query_lens, positions.device),
            contexts=contexts.to(positions.device, non_blocking=True),
            longest_query=max(query_lens),
            block_tables=block_tables[:, :blocks].int().contiguous(),
        )

    @classmethod
    def decode(
        cls, *, positions: Tensor, kv_indices: Tensor, block_tables: Tensor, longest_context: int
    ) -> Flash3Batch:
        """See `DecodeBatch`; the table bounds the contexts."""
        rows = torch.arange(len(positions) + 1, dtype=torch.int32, device=positions.device)
        return cls(
            positions=positions,
            kv_indices=kv_indices,
            query_ends=rows,
            contexts=(positions + 1).int(),
            longest_query=1,
            block_tables=block_tables.int(),
        )

    def attend(self, layer: int, q: Tensor, cache: KVCache) -> Tensor:
        attended: Tensor = flash_attn_with_kvcache(
            q,
            cache.keys[layer],
            cache.values[layer],
            cache_seqlens=self.contexts,
            page_table=self.block_tables,
            cu_seqlens_q=self.query_ends,
            max_seqlen_q=self.longest_query,
            causal=True,
        )
        return attended
