"""Paged attention that reads the pages where they lie.

A block has as many positions as a panel has outputs, so the keys of a head in one block are a
panel, and its values are one panel for each sixteen of their elements: see `tiles`. Queries and
weights are rounded to the type of the cache. Work is dealt out by KV head and a few tokens of a
row; scores of a whole context are kept, then made weights, then multiplied with the values. A
token's sums run over its own context in one order, wherever it stands in a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache as cached

import numpy as np
import torch
from numba import carray, njit
from torch import Tensor

from server.kernels.attention import KVCache
from server.kernels.cpu.team import Kernel
from server.kernels.cpu.tiles import ROWS, Form, compiled, inputs_together, tile_of
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
    maximum,
    splat,
    store,
    store_kept,
    take,
    total,
)

BLOCK_SIZE = WIDTH
HEAD_DIM_UNIT = 2 * WIDTH
"""Rotation takes one vector of each half of a head."""

TILE = ("row", "token", "tokens", "before", "kv_head")
"""The first token, by its place in the step, and how much context is before that."""
_TILE_BYTES = 8 * len(TILE)

_FIELDS = (
    "items tiles tables table_bytes scores scores_bytes "
    "queries keys values result heads group head_dim"
)


@njit
def _exponentiate(scores, blocks, seen, scale, value_bytes):
    """Scores of one query to exp(scale * score - the largest) in the type of the cache, 0 behind
    the keys that it sees. Returns their sum."""
    nothing = splat(f32(-np.inf))
    highest = nothing
    for block in range(blocks):
        score = load(scores + block * VECTOR_BYTES)
        highest = maximum(first(seen - block * WIDTH, score, nothing), highest)
    offset, factor, zero = splat(-largest(highest) * scale), splat(scale), splat(f32(0))
    sums = zero
    for block in range(blocks):
        score = load(scores + block * VECTOR_BYTES)
        weight = first(seen - block * WIDTH, exp(fma(score, factor, offset)), zero)
        # In place: what is written is never longer than what was read.
        store_kept(scores, block * WIDTH, weight, value_bytes)
        sums = sums + weight
    return total(sums)


@njit
def to_weights(scores, count, blocks, seen, more, scale, value_bytes):
    """Scores of some queries, each `blocks` vectors, to what `_exponentiate` makes of them. Returns
    where behind them a vector of each query repeats one over its sum.

    Args:
        seen: keys that the first query sees.
        more: how many more each one sees than the one before it.
    """
    row_bytes = blocks * VECTOR_BYTES
    shares = scores + count * row_bytes
    for index in range(count):
        row = scores + index * row_bytes
        added = _exponentiate(row, blocks, seen + index * more, scale, value_bytes)
        store(shares + index * VECTOR_BYTES, splat(f32(1) / added))
    return shares


@njit
def scale_rows(rows, row_bytes, count, width, factors):
    """Multiplies each row with the number that a vector of `factors` repeats."""
    for index in range(count):
        factor = load(factors + index * VECTOR_BYTES)
        for part in range(0, width, WIDTH):
            to = rows + index * row_bytes + part * 4
            store(to, load(to) * factor)


@cached
def _kernel(value_bytes: int) -> Kernel:
    """For a cache of values of so many bytes."""
    form = Form(value_bytes, value_bytes)
    score_tile, weigh_tile = tile_of(form, "one a page"), tile_of(form, "page by page")
    together = form.together
    panel_bytes = WIDTH * WIDTH * value_bytes

    @compiled(form)
    def score(queries, query_bytes, count, head_dim, tables, blocks, keys, page_bytes, scores):
        """Products of some queries with all keys of a head."""
        block = 0
        while block < blocks:
            block += score_tile(
                blocks - block,
                count,
                count,
                queries,
                query_bytes,
                keys,
                page_bytes,
                head_dim // together,
                scores + block * VECTOR_BYTES,
                blocks * VECTOR_BYTES,
                0,
                0,
                0,
                0,
                tables + 8 * block,
                blocks - block,
            )

    @compiled(form)
    def weigh(
        weights, count, tables, blocks, known, values, page_bytes, head_dim, result, result_bytes
    ):
        """Sums of the values of a head, weighted for some queries.

        Args:
            known: positions that have values. What lies behind them may be anything, but for one
                that lies together with the last of them.
        """
        panels, whole = head_dim // WIDTH, known // WIDTH
        # A page that is not full comes last, by itself.
        for first_page, pages, steps in (
            (0, whole, WIDTH // together),
            (whole, blocks - whole, (known % WIDTH + together - 1) // together),
        ):
            panel = 0
            while panel < panels and pages:
                panel += weigh_tile(
                    panels - panel,
                    count,
                    count,
                    weights + first_page * WIDTH * value_bytes,
                    blocks * VECTOR_BYTES,
                    values + panel * panel_bytes,
                    page_bytes,
                    steps,
                    result + panel * VECTOR_BYTES,
                    result_bytes,
                    first_page,
                    0,
                    0,
                    0,
                    tables + 8 * first_page,
                    pages,
                )

    def attend(pointer):
        a = carray(pointer, 1)[0]
        scores = a.scores + take(pointer, 1) * a.scores_bytes
        head_bytes = WIDTH * a.head_dim * value_bytes
        page_bytes = a.heads // a.group * head_bytes
        while True:
            item = take(pointer, 0)
            if item >= a.items:
                break
            at = a.tiles + item * _TILE_BYTES
            row, token, tokens = load_index(at), load_index(at + 8), load_index(at + 16)
            before, kv_head = load_index(at + 24), load_index(at + 32)
            known = before + tokens
            blocks = (known + WIDTH - 1) // WIDTH
            tables = a.tables + row * a.table_bytes
            # Queries side by side: all heads of one token, or several tokens of one head.
            alone = tokens == 1
            stride = a.head_dim if alone else a.heads * a.head_dim
            for query in range(0, a.group, ROWS if alone else 1):
                count = min(ROWS, a.group - query) if alone else tokens
                begin = (token * a.heads + kv_head * a.group + query) * a.head_dim
                score(
                    a.queries + begin * value_bytes,
                    stride * value_bytes,
                    count,
                    a.head_dim,
                    tables,
                    blocks,
                    a.keys + kv_head * head_bytes,
                    page_bytes,
                    scores,
                )
                more = 0 if alone else 1
                shares = to_weights(scores, count, blocks, before + 1, more, a.scale, value_bytes)
                weigh(
                    scores,
                    count,
                    tables,
                    blocks,
                    known,
                    a.values + kv_head * head_bytes,
                    page_bytes,
                    a.head_dim,
                    a.result + begin * 4,
                    stride * 4,
                )
                scale_rows(a.result + begin * 4, stride * 4, count, a.head_dim, shares)

    return Kernel(attend, _FIELDS, ["scale"], form)


@dataclass(frozen=True, slots=True)
class CpuBatch:
    """An `AttentionBatch`; arguments and shapes are described there."""

    positions: Tensor
    kv_indices: Tensor
    tables: Tensor
    """[rows, blocks]"""
    tiles: Tensor
    """By `TILE`, those with most work first: [tiles, 5]."""
    keys: int
    """Of the longest context, in whole blocks."""

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
            for done in range(0, count, ROWS):
                before = context - count + done
                tiles.append((row, first_token + done, min(ROWS, count - done), before))
            first_token += count
        tiles.sort(key=lambda tile: tile[2] * (tile[2] + tile[3]), reverse=True)
        heads = range(cache.keys.shape[3])
        return cls(
            positions,
            kv_indices,
            block_tables.long().contiguous(),
            torch.tensor([(*tile, head) for tile in tiles for head in heads]),
            max(context + -context % BLOCK_SIZE for context in context_lens),
        )

    def copy(self, longest: int) -> CpuBatch:
        """One of its own memory, for contexts of up to `longest` tokens."""
        return CpuBatch(
            self.positions.clone(),
            self.kv_indices.clone(),
            self.tables.clone(),
            self.tiles.clone(),
            longest + -longest % BLOCK_SIZE,
        )

    def take(self, other: CpuBatch) -> None:
        """What another one has, with as many rows and tokens."""
        self.positions.copy_(other.positions)
        self.kv_indices.copy_(other.kv_indices)
        self.tables.copy_(other.tables)
        self.tiles.copy_(other.tiles)

    def write_and_attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, cache: KVCache
    ) -> Tensor:
        write(cache, layer, self.kv_indices, k, v)
        return self.attend(layer, q, cache)

    def attend(self, layer: int, q: Tensor, cache: KVCache) -> Tensor:
        keys, values = pages(cache, layer)
        _, heads, head_dim = q.shape
        q = q.to(keys.dtype).contiguous()
        result = torch.empty(q.shape)
        scores = torch.empty(torch.get_num_threads(), ROWS * (self.keys + WIDTH))
        _kernel(keys.itemsize).run(
            items=len(self.tiles),
            tiles=self.tiles,
            tables=self.tables,
            table_bytes=8 * self.tables.shape[1],
            scores=scores,
            scores_bytes=4 * scores.shape[1],
            queries=q,
            keys=keys,
            values=values,
            result=result,
            heads=heads,
            group=heads // keys.shape[1],
            head_dim=head_dim,
            scale=head_dim**-0.5,
        )
        return result


def pages(cache: KVCache, layer: int) -> tuple[Tensor, Tensor]:
    """Keys and values of a layer as panels: [blocks, kv_heads, head_dim / together, 16, together]
    and [blocks, kv_heads, head_dim / 16, 16 / together, 16, together]. It is the same memory as
    other backends fill otherwise."""
    count, size, heads, head_dim = cache.keys.shape[1:]
    together = inputs_together(cache.keys.itemsize)
    return (
        cache.keys[layer].view(count, heads, head_dim // together, size, together),
        cache.values[layer].view(count, heads, -1, size // together, WIDTH, together),
    )


def write(cache: KVCache, layer: int, kv_indices: Tensor, k: Tensor, v: Tensor) -> None:
    """Puts `k` and `v` [T, kv_heads, head_dim] where `kv_indices` [T] says, and zeros where a value
    lies together with one that is not known yet."""
    keys, values = pages(cache, layer)
    together = keys.shape[-1]
    blocks, offsets = kv_indices // BLOCK_SIZE, kv_indices % BLOCK_SIZE
    keys[blocks, :, :, offsets] = torch.unflatten(k, 2, (-1, together)).to(keys.dtype)
    steps, parts = offsets // together, offsets % together
    for part in range(1, together):
        early = parts < part
        values[blocks[early], :, :, steps[early], :, part] = 0
    values[blocks, :, :, steps, :, parts] = torch.unflatten(v, 2, (-1, WIDTH)).to(values.dtype)
