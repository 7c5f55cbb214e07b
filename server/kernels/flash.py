"""Paged attention through flash-attn: prefill, chunks and decode in one call.

One entry serves rows of any length: `flash_attn_varlen_func` reads keys and values through the
block table, folds the query heads of a KV head into its tiles and splits long contexts over the
chip. Its pages hold 256 tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from flash_attn import flash_attn_varlen_func
from torch import Tensor

from server.kernels.attention import KVCache, WritesFirst, row_ends

BLOCK_SIZE = 256


@dataclass(frozen=True, slots=True)
class FlashBatch(WritesFirst):
    """An `AttentionBatch`; arguments and shapes are described there."""

    positions: Tensor
    kv_indices: Tensor
    query_ends: Tensor
    """Where each row's tokens begin, and the end of the last: [rows + 1] int32."""
    context_ends: Tensor
    """The same for contexts."""
    longest_query: int
    longest_context: int
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
    ) -> FlashBatch:
        blocks = -(-max(context_lens) // cache.block_size)
        return cls(
            positions=positions,
            kv_indices=kv_indices,
            query_ends=row_ends(query_lens, positions.device),
            context_ends=row_ends(context_lens, positions.device),
            longest_query=max(query_lens),
            longest_context=max(context_lens),
            block_tables=block_tables[:, :blocks].int().contiguous(),
        )

    @classmethod
    def decode(
        cls, *, positions: Tensor, kv_indices: Tensor, block_tables: Tensor, longest_context: int
    ) -> FlashBatch:
        """See `DecodeBatch`."""
        rows = torch.arange(len(positions) + 1, dtype=torch.int32, device=positions.device)
        contexts = torch.cat([rows[:1].long(), positions + 1])
        return cls(
            positions=positions,
            kv_indices=kv_indices,
            query_ends=rows,
            context_ends=contexts.cumsum(0).int(),
            longest_query=1,
            longest_context=longest_context,
            block_tables=block_tables.int(),
        )

    def attend(self, layer: int, q: Tensor, cache: KVCache) -> Tensor:
        attended: Tensor = flash_attn_varlen_func(
            q,
            cache.keys[layer],
            cache.values[layer],
            self.query_ends,
            self.context_ends,
            self.longest_query,
            self.longest_context,
            causal=True,
            block_table=self.block_tables,
        )
        return attended
