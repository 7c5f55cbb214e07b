"""Paged prefill in Triton: rows of several tokens, each seeing its cached context and itself.

A program attends one query head of up to QUERIES_PER_TILE tokens of one row to all keys before
them, from position 0 on in tiles of one size. What a token gets depends, to the last bit, on its
row and its position alone: not on other rows, and not on where its prompt was cut into chunks.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from server.kernels.triton.tile import (
    LOG2_E,
    attend_tile,
    first_key,
    key_offsets,
    tile_keys,
)

QUERIES_PER_TILE = 128


@triton.jit
def _attend_queries(
    q, keys, values, tables, tiles, out, scale, group,
    q_stride, out_stride, table_stride, kv_stride, KEYS: tl.constexpr,
    SIZE: tl.constexpr, QUERIES: tl.constexpr, HEAD_DIM: tl.constexpr,
) -> None:  # fmt: skip
    """Grid: tiles of queries, query heads."""
    tile, head = tiles + tl.program_id(0) * 4, tl.program_id(1)
    token, count = tl.load(tile), tl.load(tile + 1)
    position, row = tl.load(tile + 2), tl.load(tile + 3)
    members, dims = tl.arange(0, QUERIES), tl.arange(0, HEAD_DIM)
    real = members < count
    offsets = (token + members)[:, None].to(tl.int64)
    query_offsets = offsets * q_stride + head * HEAD_DIM + dims[None, :]
    query = tl.load(q + query_offsets, mask=real[:, None], other=0.0)
    best = tl.full([QUERIES], float("-inf"), tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    joined = tl.zeros([QUERIES, HEAD_DIM], tl.float32)
    context = position + count
    key_offset = key_offsets(kv_stride, KEYS, HEAD_DIM)
    table = tables + row * table_stride
    for start in range(0, context, KEYS):
        place = first_key(table, start, head // group, kv_stride, SIZE, HEAD_DIM)
        at = start + tl.arange(0, KEYS)
        written = (at < context)[:, None]
        k = tl.load(keys + place + key_offset, mask=written, other=0.0)
        v = tl.load(values + place + key_offset, mask=written, other=0.0)
        seen = at[None, :] <= (position + members)[:, None]
        best, total, joined = attend_tile(query, k, v, seen, scale, best, total, joined)
    target = out + offsets * out_stride + head * HEAD_DIM + dims[None, :]
    tl.store(target, (joined / total[:, None]).to(out.dtype.element_ty), mask=real[:, None])


def query_tiles(first_token: int, count: int, position: int, row: int) -> list[list[int]]:
    """Tiles of a row's `count` tokens: first token of the step, tokens, first position, row."""
    return [
        [first_token + start, min(QUERIES_PER_TILE, count - start), position + start, row]
        for start in range(0, count, QUERIES_PER_TILE)
    ]


def paged_prefill(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    tiles: Tensor,
    block_tables: Tensor,
    out: Tensor,
) -> None:
    """Attention of the tokens in `tiles` [tiles, 4] int32, as `query_tiles` makes them. The other
    arguments are those of `decode.paged_decode`, with the block tables of all rows."""
    (heads, head_dim), (_, size, kv_heads, _) = q.shape[1:], keys.shape
    _attend_queries[len(tiles), heads](
        q,
        keys,
        values,
        block_tables,
        tiles,
        out,
        LOG2_E / head_dim**0.5,
        heads // kv_heads,
        q.stride(0),
        out.stride(0),
        block_tables.stride(0),
        keys.stride(1),
        KEYS=tile_keys(size),
        SIZE=size,
        QUERIES=QUERIES_PER_TILE,
        HEAD_DIM=head_dim,
        num_warps=8,
        num_stages=3,
    )
