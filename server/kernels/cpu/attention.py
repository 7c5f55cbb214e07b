"""Paged attention that reads the pages where they lie.

Inside a block the keys of a head stand element by element, sixteen positions side by side, so one
vector holds a block's products with one query. Work is dealt out by KV head and a few tokens of a
row; scores of a whole context are kept, then normalised, then multiplied with the values. A token's
sums run over its own context in one order, wherever it stands in a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numba import carray, njit
from torch import Tensor

from server.kernels.attention import KVCache
from server.kernels.cpu.team import Kernel
from server.kernels.cpu.vectors import (
    VECTOR_BYTES,
    WIDTH,
    exp,
    f32,
    first,
    fma,
    largest,
    load,
    load_index,
    load_kept,
    load_one,
    maximum,
    splat,
    store,
    store_one,
    take,
    total,
)

BLOCK_SIZE = WIDTH
HEAD_DIM_UNIT = 32
"""Two vectors of a head are multiplied at a time."""

TILE_TOKENS = 8
TILE_SCORES = 4096
"""Of a query head, at most where a tile has several tokens: they stay in a core's own cache."""

TILE = ("row", "token", "tokens", "before", "kv_head")
"""The first token, by its place in the step, and how much context is before that."""
_TILE_BYTES = 8 * len(TILE)

_FIELDS = (
    "items tiles tables table_bytes scores scores_bytes "
    "queries keys values value_bytes result heads group head_dim"
)


@njit
def _score(queries, heads, group, tokens, head_dim, keys, value_bytes, scores, row_bytes):
    """Products of a tile's queries with one head of one block. Four queries at a time; the last one
    stands in for those that are missing."""
    count = tokens * group
    for x in range(0, count, 4):
        a, b, c, d = x, min(x + 1, count - 1), min(x + 2, count - 1), min(x + 3, count - 1)
        query_a = queries + (a // group * heads + a % group) * head_dim * 4
        query_b = queries + (b // group * heads + b % group) * head_dim * 4
        query_c = queries + (c // group * heads + c % group) * head_dim * 4
        query_d = queries + (d // group * heads + d % group) * head_dim * 4
        sum_a = sum_b = sum_c = sum_d = splat(f32(0))
        for index in range(head_dim):
            key = load_kept(keys, index * WIDTH, value_bytes)
            sum_a = fma(splat(load_one(query_a + 4 * index)), key, sum_a)
            sum_b = fma(splat(load_one(query_b + 4 * index)), key, sum_b)
            sum_c = fma(splat(load_one(query_c + 4 * index)), key, sum_c)
            sum_d = fma(splat(load_one(query_d + 4 * index)), key, sum_d)
        store(scores + a * row_bytes, sum_a)
        store(scores + b * row_bytes, sum_b)
        store(scores + c * row_bytes, sum_c)
        store(scores + d * row_bytes, sum_d)


@njit
def _exponentiate(scores, blocks, seen, scale):
    """Scores of one query to exp(scale * score - the largest), 0 behind the keys that it sees.
    Returns their sum."""
    nothing = splat(f32(-np.inf))
    highest = nothing
    for block in range(blocks):
        score = load(scores + block * VECTOR_BYTES)
        highest = maximum(first(seen - block * WIDTH, score, nothing), highest)
    offset, factor, zero = splat(-largest(highest) * scale), splat(scale), splat(f32(0))
    sums = zero
    for block in range(blocks):
        at = scores + block * VECTOR_BYTES
        weight = first(seen - block * WIDTH, exp(fma(load(at), factor, offset)), zero)
        store(at, weight)
        sums = sums + weight
    return total(sums)


@njit
def _weigh(scores_a, scores_b, tables, blocks, known, values, page, head_dim, value_bytes, results):
    """Sums of 32 elements of the values, weighted by the scores of two queries.

    Args:
        known: positions that have values; what lies behind them may be anything.
        page: values from one block to the next.
        results: where the two sums go.
    """
    a_low = a_high = b_low = b_high = splat(f32(0))
    for block in range(blocks):
        first_value = load_index(tables + 8 * block) * page
        for index in range(min(WIDTH, known - block * WIDTH)):
            low = load_kept(values, first_value + index * head_dim, value_bytes)
            high = load_kept(values, first_value + index * head_dim + WIDTH, value_bytes)
            weight_a = splat(load_one(scores_a + block * VECTOR_BYTES + 4 * index))
            weight_b = splat(load_one(scores_b + block * VECTOR_BYTES + 4 * index))
            a_low, a_high = fma(weight_a, low, a_low), fma(weight_a, high, a_high)
            b_low, b_high = fma(weight_b, low, b_low), fma(weight_b, high, b_high)
    result_a, result_b, share_a, share_b = results
    store(result_a, a_low * splat(share_a))
    store(result_a + VECTOR_BYTES, a_high * splat(share_a))
    store(result_b, b_low * splat(share_b))
    store(result_b + VECTOR_BYTES, b_high * splat(share_b))


def _attend(pointer):
    a = carray(pointer, 1)[0]
    scores = a.scores + take(pointer, 1) * a.scores_bytes
    head_bytes = a.head_dim * 4
    kv_heads = a.heads // a.group
    page = WIDTH * kv_heads * a.head_dim
    while True:
        item = take(pointer, 0)
        if item >= a.items:
            break
        at = a.tiles + item * _TILE_BYTES
        row, token, tokens = load_index(at), load_index(at + 8), load_index(at + 16)
        before, kv_head = load_index(at + 24), load_index(at + 32)
        count = tokens * a.group
        known = before + tokens
        blocks = (known + WIDTH - 1) // WIDTH
        row_bytes = blocks * VECTOR_BYTES
        tables = a.tables + row * a.table_bytes
        corner = (token * a.heads + kv_head * a.group) * head_bytes
        head = kv_head * WIDTH * a.head_dim
        for block in range(blocks):
            keys = a.keys + (load_index(tables + 8 * block) * page + head) * a.value_bytes
            _score(
                a.queries + corner,
                a.heads,
                a.group,
                tokens,
                a.head_dim,
                keys,
                a.value_bytes,
                scores + block * VECTOR_BYTES,
                row_bytes,
            )
        shares = scores + count * row_bytes
        for x in range(count):
            at = scores + x * row_bytes
            store_one(
                shares + 4 * x,
                f32(1) / _exponentiate(at, blocks, before + x // a.group + 1, a.scale),
            )
        for x in range(0, count, 2):
            y = min(x + 1, count - 1)
            to_x = a.result + corner + (x // a.group * a.heads + x % a.group) * head_bytes
            to_y = a.result + corner + (y // a.group * a.heads + y % a.group) * head_bytes
            share_x, share_y = load_one(shares + 4 * x), load_one(shares + 4 * y)
            for part in range(0, a.head_dim, 2 * WIDTH):
                _weigh(
                    scores + x * row_bytes,
                    scores + y * row_bytes,
                    tables,
                    blocks,
                    known,
                    a.values + (head + part) * a.value_bytes,
                    page,
                    a.head_dim,
                    a.value_bytes,
                    (to_x + 4 * part, to_y + 4 * part, share_x, share_y),
                )


ATTEND = Kernel(_attend, _FIELDS, ["scale"])


@dataclass(frozen=True, slots=True)
class CpuBatch:
    """An `AttentionBatch`; arguments and shapes are described there."""

    positions: Tensor
    kv_indices: Tensor
    tables: Tensor
    """[rows, blocks]"""
    tiles: Tensor
    """By `TILE`, those with most work first: [tiles, 5]."""
    scores: int
    """How many the largest tile has for each query head of a group."""

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
    ) -> CpuBatch:
        tiles: list[tuple[int, int, int, int]] = []
        first_token = 0
        for row, (count, context) in enumerate(zip(query_lens, context_lens, strict=True)):
            tokens = max(1, min(TILE_TOKENS, TILE_SCORES // context))
            for done in range(0, count, tokens):
                before = context - count + done
                tiles.append((row, first_token + done, min(tokens, count - done), before))
            first_token += count
        tiles.sort(key=lambda tile: tile[2] * (tile[2] + tile[3]), reverse=True)
        heads = range(cache.keys.shape[3])
        return cls(
            positions,
            kv_indices,
            block_tables.long().contiguous(),
            torch.tensor([(*tile, head) for tile in tiles for head in heads]),
            max(tokens * (_whole_blocks(before + tokens) + 1) for _, _, tokens, before in tiles),
        )

    def write_and_attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, cache: KVCache
    ) -> Tensor:
        write(cache, layer, self.kv_indices, k, v)
        return self.attend(layer, q, cache)

    def attend(self, layer: int, q: Tensor, cache: KVCache) -> Tensor:
        keys, values = pages(cache, layer)
        _, heads, head_dim = q.shape
        q = q.contiguous()
        result = torch.empty_like(q)
        group = heads // keys.shape[1]
        scores = torch.empty(torch.get_num_threads(), group * self.scores)
        ATTEND.run(
            items=len(self.tiles),
            tiles=self.tiles.data_ptr(),
            tables=self.tables.data_ptr(),
            table_bytes=8 * self.tables.shape[1],
            scores=scores.data_ptr(),
            scores_bytes=4 * scores.shape[1],
            queries=q.data_ptr(),
            keys=keys.data_ptr(),
            values=values.data_ptr(),
            value_bytes=values.itemsize,
            result=result.data_ptr(),
            heads=heads,
            group=group,
            head_dim=head_dim,
            scale=head_dim**-0.5,
        )
        return result


def pages(cache: KVCache, layer: int) -> tuple[Tensor, Tensor]:
    """Keys [blocks, kv_heads, head_dim, positions] and values [blocks, kv_heads, positions,
    head_dim] of a layer: the same memory as other backends fill otherwise."""
    count, size, heads, head_dim = cache.keys.shape[1:]
    return (
        cache.keys[layer].view(count, heads, head_dim, size),
        cache.values[layer].view(count, heads, size, head_dim),
    )


def write(cache: KVCache, layer: int, kv_indices: Tensor, k: Tensor, v: Tensor) -> None:
    """Puts `k` and `v` [T, kv_heads, head_dim] where `kv_indices` [T] says."""
    keys, values = pages(cache, layer)
    blocks, offsets = kv_indices // BLOCK_SIZE, kv_indices % BLOCK_SIZE
    keys[blocks, :, :, offsets] = k.to(keys.dtype)
    values[blocks, :, offsets] = v.to(values.dtype)


def _whole_blocks(tokens: int) -> int:
    return tokens + -tokens % BLOCK_SIZE
