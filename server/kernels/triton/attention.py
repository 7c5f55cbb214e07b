"""Paged attention through our own Triton kernels: any CUDA device, nothing to install.

Rows of one token go through the decode kernel, longer ones through the prefill kernel, in the same
step; which of the two a row takes depends on its own length alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from server.kernels.attention import KVCache, WritesFirst
from server.kernels.triton.decode import paged_decode
from server.kernels.triton.prefill import paged_prefill, query_tiles

BLOCK_SIZE = 64
"""Tokens of a block: a tile of keys, so finer blocks would only make smaller tiles."""


@dataclass(frozen=True, slots=True)
class TritonBatch(WritesFirst):
    """An `AttentionBatch`; arguments and shapes are described there."""

    positions: Tensor
    kv_indices: Tensor
    block_tables: Tensor
    """[rows, blocks]"""
    decode_tokens: Tensor
    """Tokens that are rows of their own: [decode rows]."""
    decode_tables: Tensor
    """Their block tables."""
    longest_decode: int
    """Longest context of those."""
    tiles: Tensor
    """Tiles of the other tokens, as `query_tiles` makes them."""

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
    ) -> TritonBatch:
        device = positions.device
        firsts = accumulate(query_lens, initial=0)
        rows = list(zip(range(len(query_lens)), firsts, query_lens, context_lens, strict=False))
        decode = [(row, first, context) for row, first, count, context in rows if count == 1]
        tiles = [
            tile
            for row, first, count, context in rows
            if count > 1
            for tile in query_tiles(first, count, context - count, row)
        ]
        indices = torch.tensor([(row, first) for row, first, _ in decode]).view(-1, 2)
        decode_rows, decode_tokens = indices.to(device, non_blocking=True).unbind(1)
        return cls(
            positions=positions,
            kv_indices=kv_indices,
            block_tables=block_tables,
            decode_tokens=decode_tokens.contiguous(),
            decode_tables=block_tables[decode_rows] if decode else block_tables[:0],
            longest_decode=max((context for *_, context in decode), default=0),
            tiles=torch.tensor(tiles, dtype=torch.int32).to(device, non_blocking=True),
        )

    @classmethod
    def decode(
        cls, *, positions: Tensor, kv_indices: Tensor, block_tables: Tensor, longest_context: int
    ) -> TritonBatch:
        """See `DecodeBatch`."""
        return cls(
            positions=positions,
            kv_indices=kv_indices,
            block_tables=block_tables,
            decode_tokens=torch.arange(len(positions), device=positions.device),
            decode_tables=block_tables,
            longest_decode=longest_context,
            tiles=positions.new_empty((0, 4), dtype=torch.int32),
        )

    def attend(self, layer: int, q: Tensor, cache: KVCache) -> Tensor:
        keys, values = cache.keys[layer], cache.values[layer]
        out = q.new_empty(q.shape)
        if len(self.decode_tokens):
            paged_decode(
                q,
                keys,
                values,
                tokens=self.decode_tokens,
                positions=self.positions,
                block_tables=self.decode_tables,
                longest_context=self.longest_decode,
                out=out,
            )
        if len(self.tiles):
            paged_prefill(
                q, keys, values, tiles=self.tiles, block_tables=self.block_tables, out=out
            )
        return out
