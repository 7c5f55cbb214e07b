"""Paged decode in Triton: one query token a row, its context split over the chip.

A program attends the query heads of one KV head to SPLIT_KEYS keys of one row, as one tile of the
matrix units; a second kernel joins the parts in their order. A row's numbers depend on the row
alone, to the last bit: where its context is split follows from positions and not from the batch,
nothing is added atomically, and neither kernel looks at how many rows there are. Lengths are read
on the device, so a launch can be captured in a graph; programs beyond a row's context end at once.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from server.kernels.triton.tile import (
    LOG2_E,
    SMALLEST_TILE,
    attend_tile,
    first_key,
    key_offsets,
    tile_keys,
)

SPLIT_KEYS = 256


@triton.jit
def _attend_split(
    q, keys, values, tables, positions, tokens, parts,
    weights, scale, group, q_stride, table_stride, kv_stride,
    SPLIT: tl.constexpr, KEYS: tl.constexpr, SIZE: tl.constexpr, QUERIES: tl.constexpr,
    HEAD_DIM: tl.constexpr,
) -> None:  # fmt: skip
    """Grid: rows, KV heads, splits. Leaves the mean of its values in `parts` [rows, heads, splits,
    HEAD_DIM] and the logarithm of its sum of weights in `weights` [rows, heads, splits]."""
    row, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    token = tl.load(tokens + row)
    context = tl.load(positions + token).to(tl.int32) + 1
    first = split * SPLIT
    if first >= context:
        return
    members, dims = tl.arange(0, QUERIES), tl.arange(0, HEAD_DIM)
    query_head = head * group + members
    real = members < group
    query_offsets = token * q_stride + query_head[:, None] * HEAD_DIM + dims[None, :]
    query = tl.load(q + query_offsets, mask=real[:, None], other=0.0)
    best = tl.full([QUERIES], float("-inf"), tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    out = tl.zeros([QUERIES, HEAD_DIM], tl.float32)
    offsets = key_offsets(kv_stride, KEYS, HEAD_DIM)
    for start in range(first, tl.minimum(first + SPLIT, context), KEYS):
        place = first_key(tables + row * table_stride, start, head, kv_stride, SIZE, HEAD_DIM)
        seen = start + tl.arange(0, KEYS) < context
        k = tl.load(keys + place + offsets, mask=seen[:, None], other=0.0)
        v = tl.load(values + place + offsets, mask=seen[:, None], other=0.0)
        best, total, out = attend_tile(query, k, v, seen[None, :], scale, best, total, out)
    heads, splits = tl.num_programs(1) * group, tl.num_programs(2)
    part = (row * heads + query_head) * splits + split
    tl.store(weights + part, best + tl.log2(total), mask=real)
    part_offsets = part[:, None] * HEAD_DIM + dims[None, :]
    tl.store(parts + part_offsets, out / total[:, None], mask=real[:, None])


@triton.jit
def _join_splits(
    parts, weights, positions, tokens, out, out_stride, splits,
    SPLIT: tl.constexpr, HEAD_DIM: tl.constexpr,
) -> None:  # fmt: skip
    """Grid: rows, heads. Splits are added up one after another."""
    row, head = tl.program_id(0), tl.program_id(1)
    token = tl.load(tokens + row)
    used = tl.load(positions + token).to(tl.int32) // SPLIT + 1
    dims = tl.arange(0, HEAD_DIM)
    first = (row * tl.num_programs(1) + head) * splits
    best = tl.load(weights + first)
    total = 1.0
    joined = tl.load(parts + first * HEAD_DIM + dims)
    for split in range(1, used):
        weight = tl.load(weights + first + split)
        part = tl.load(parts + (first + split) * HEAD_DIM + dims)
        larger = tl.maximum(best, weight)
        shrink, share = tl.exp2(best - larger), tl.exp2(weight - larger)
        total = total * shrink + share
        joined = joined * shrink + part * share
        best = larger
    target = out + token * out_stride + head * HEAD_DIM + dims
    tl.store(target, (joined / total).to(out.dtype.element_ty))


def paged_decode(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    tokens: Tensor,
    positions: Tensor,
    block_tables: Tensor,
    longest_context: int,
    out: Tensor,
) -> None:
    """Attention of some tokens of a step, each the last of its row.

    Args:
        q: [T, heads, head_dim], rows of heads contiguous.
        keys: [blocks, block_size, kv_heads, head_dim], contiguous; `values` alike.
        tokens: which tokens of the step: [rows].
        positions: of all tokens of the step: [T].
        block_tables: of the rows: [rows, blocks].
        longest_context: no row's context is longer.
        out: [T, heads, head_dim], contiguous; only the rows' tokens are written.
    """
    (heads, head_dim), (_, size, kv_heads, _) = q.shape[1:], keys.shape
    rows, group = len(tokens), heads // kv_heads
    splits = -(-longest_context // SPLIT_KEYS)
    parts = torch.empty(rows, heads, splits, head_dim, dtype=torch.float32, device=q.device)
    weights = torch.empty(rows, heads, splits, dtype=torch.float32, device=q.device)
    _attend_split[rows, kv_heads, splits](
        q,
        keys,
        values,
        block_tables,
        positions,
        tokens,
        parts,
        weights,
        LOG2_E / head_dim**0.5,
        group,
        q.stride(0),
        block_tables.stride(0),
        keys.stride(1),
        SPLIT=SPLIT_KEYS,
        KEYS=tile_keys(size),
        SIZE=size,
        QUERIES=max(SMALLEST_TILE, triton.next_power_of_2(group)),
        HEAD_DIM=head_dim,
        num_warps=4,
        num_stages=3,
    )
    _join_splits[rows, heads](
        parts,
        weights,
        positions,
        tokens,
        out,
        out.stride(0),
        splits,
        SPLIT=SPLIT_KEYS,
        HEAD_DIM=head_dim,
        num_warps=1,
    )
