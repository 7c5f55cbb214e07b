"""Paged attention in plain torch: the reference for all others, and what runs everywhere.

Contexts are gathered from the cache and go through `scaled_dot_product_attention`: rows of one
token together, the query heads of a KV head standing in for query positions; longer rows one by
one. Lengths are padded so that what a token gets does not depend, to the last bit, on what else is
in the batch. Padding repeats the row's own first position, so no other sequence's numbers, which
may be NaN, come near.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from server.kernels.attention import KVCache, WritesFirst

BLOCK_SIZE = 16
"""Tokens of a block: finer blocks find more shared prefixes, coarser ones need smaller tables."""

KEYS_MULTIPLE = 512
"""torch's CPU kernel adds up the keys in parts of 512; a last part of another size would be added
in another order."""

QUERIES_MULTIPLE = 16
"""Matrix products of a few rows take other code paths, with other rounding."""


@dataclass(frozen=True, slots=True)
class _DecodeRows:
    """Rows of one token whose padded contexts are equally long."""

    tokens: Tensor
    """Which tokens of the step: [rows]."""
    context: Tensor
    """Places in the cache: [rows * keys]."""
    bias: Tensor
    """0 or -inf: [rows, 1, 1, keys]."""

    def attend(self, q: Tensor, keys: Tensor, values: Tensor, out: Tensor) -> None:
        queries = torch.unflatten(q[self.tokens], 1, (keys.shape[1], -1))
        group = queries.shape[2]
        attended = scaled_dot_product_attention(
            _pad_queries(queries), self._gather(keys), self._gather(values), attn_mask=self.bias
        )
        out[self.tokens] = attended[:, :, :group].flatten(1, 2)

    def _gather(self, cached: Tensor) -> Tensor:
        """[rows, kv_heads, keys, head_dim]"""
        places = cached.index_select(0, self.context)
        return torch.unflatten(places, 0, (len(self.tokens), -1)).transpose(1, 2)


@dataclass(frozen=True, slots=True)
class _ChunkRow:
    """A row of several tokens."""

    tokens: slice
    """Which tokens of the step."""
    context: Tensor
    """Places in the cache: [keys]."""
    bias: Tensor
    """0 or -inf: [padded tokens, keys]."""

    def attend(self, q: Tensor, keys: Tensor, values: Tensor, out: Tensor) -> None:
        queries = torch.unflatten(q[self.tokens], 1, (keys.shape[1], -1)).permute(1, 2, 0, 3)
        group, count = queries.shape[1:3]
        attended = scaled_dot_product_attention(
            _pad_queries(queries),
            self._gather(keys, group),
            self._gather(values, group),
            attn_mask=self.bias,
        )
        out[self.tokens] = attended[:, :, :count].permute(2, 0, 1, 3).flatten(1, 2)

    def _gather(self, cached: Tensor, group: int) -> Tensor:
        """[kv_heads, group, keys, head_dim], each KV head once in memory."""
        places = cached.index_select(0, self.context)
        return places.transpose(0, 1).unsqueeze(1).expand(-1, group, -1, -1)


@dataclass(frozen=True, slots=True)
class SdpaBatch(WritesFirst):
    """An `AttentionBatch`; arguments and shapes are described there."""

    positions: Tensor
    kv_indices: Tensor
    rows: tuple[_DecodeRows | _ChunkRow, ...]

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
    ) -> SdpaBatch:
        layout = _Layout(cache, positions, block_tables.long())
        rows: list[_DecodeRows | _ChunkRow] = []
        decode: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        for row, (start, end) in enumerate(pairwise(accumulate(query_lens, initial=0))):
            keys = context_lens[row] + -context_lens[row] % KEYS_MULTIPLE
            if end - start == 1:
                decode[keys].append((row, start))
            else:
                rows.append(layout.chunk(row, slice(start, end), keys))
        for keys, members in decode.items():
            rows.append(layout.decode(members, keys))
        return cls(positions, kv_indices, tuple(rows))

    def attend(self, layer: int, q: Tensor, cache: KVCache) -> Tensor:
        keys, values = cache.layer(layer)
        out = torch.empty_like(q)
        for rows in self.rows:
            rows.attend(q, keys, values, out)
        return out


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the tokens of a step stand and where their contexts lie."""

    cache: KVCache
    positions: Tensor
    block_tables: Tensor

    def chunk(self, row: int, tokens: slice, keys: int) -> _ChunkRow:
        positions = self.positions[tokens]
        hidden = self._hidden(positions, keys)
        context = self._context(self.block_tables[row : row + 1], hidden[-1:])
        return _ChunkRow(tokens, context, _pad_queries(self._bias(hidden)))

    def decode(self, members: list[tuple[int, int]], keys: int) -> _DecodeRows:
        """`members` are (row, token) pairs."""
        rows, tokens = self.positions.new_tensor(members).T
        hidden = self._hidden(self.positions[tokens], keys)
        context = self._context(self.block_tables[rows], hidden)
        return _DecodeRows(tokens, context, self._bias(hidden)[:, None, None])

    def _hidden(self, positions: Tensor, keys: int) -> Tensor:
        """Whether a token must not see a position, because it comes later: [tokens, keys]."""
        return torch.arange(keys, device=positions.device) > positions[:, None]

    def _bias(self, hidden: Tensor) -> Tensor:
        return self.cache.keys.new_zeros(hidden.shape).masked_fill_(hidden, -torch.inf)

    def _context(self, block_tables: Tensor, hidden: Tensor) -> Tensor:
        """Places in the cache of the keys of each row, flattened; of its first one where a key is
        hidden from the row's last token, which is what `hidden` [rows, keys] is about."""
        size, keys = self.cache.block_size, hidden.shape[1]
        blocks = block_tables[:, : -(-keys // size)]
        offsets = torch.arange(size, device=blocks.device)
        places = (blocks[:, :, None] * size + offsets).flatten(1)[:, :keys]
        places = pad(places, (0, keys - places.shape[1]))
        return torch.where(hidden, places[:, :1], places).flatten()


def _pad_queries(x: Tensor) -> Tensor:
    """Fills the last dimension but one with zeros."""
    return pad(x, (0, 0, 0, -x.shape[-2] % QUERIES_MULTIPLE))
