"""Attention of the vision tower: every token of a picture sees every token.

The keys of a head are a matrix whose outputs are tokens, and its values one whose inputs are. A
thread takes some queries of a head; their scores stay in its own cache until they are weights.
"""

from __future__ import annotations

from functools import cache

import torch
from numba import carray
from torch import Tensor

from server.kernels.cpu.attention import scale_rows, to_weights
from server.kernels.cpu.products import rounded
from server.kernels.cpu.team import Kernel
from server.kernels.cpu.tiles import ROWS, Form, compiled, inputs_together, tile_of
from server.kernels.cpu.vectors import (
    VECTOR_BYTES,
    WIDTH,
    f32,
    load,
    scatter_kept,
    splat,
    store,
    store_pairs,
    take,
)

_FIELDS = "items parts tokens heads head_dim queries keys values scores scores_bytes result"


@cache
def _kernel(value_bytes: int) -> Kernel:
    form = Form(value_bytes, value_bytes)
    tile, together = tile_of(form), form.together

    @compiled(form)
    def multiply(x, row_bytes, count, panels, panel_count, inputs, to, to_bytes):
        """`count` rows, `ROWS` at most, with a whole matrix."""
        panel = 0
        while panel < panel_count:
            panel += tile(
                panel_count - panel,
                count,
                count,
                x,
                row_bytes,
                panels + panel * inputs * WIDTH * value_bytes,
                inputs * WIDTH * value_bytes,
                inputs // together,
                to + panel * VECTOR_BYTES,
                to_bytes,
                0,
                0,
                0,
                0,
                0,
                0,
            )

    def see(pointer):
        a = carray(pointer, 1)[0]
        scores = a.scores + take(pointer, 1) * a.scores_bytes
        blocks = (a.tokens + WIDTH - 1) // WIDTH
        row_bytes = blocks * VECTOR_BYTES
        width = a.heads * a.head_dim
        while True:
            item = take(pointer, 0)
            if item >= a.items:
                break
            picture_head, part = item // a.parts, item % a.parts
            picture, head = picture_head // a.heads, picture_head % a.heads
            keys = a.keys + picture_head * blocks * WIDTH * a.head_dim * value_bytes
            values = a.values + picture_head * blocks * WIDTH * a.head_dim * value_bytes
            token = part * ROWS
            count = min(ROWS, a.tokens - token)
            begin = (picture * a.tokens + token) * width + head * a.head_dim
            queries = a.queries + begin * value_bytes
            multiply(
                queries, width * value_bytes, count, keys, blocks, a.head_dim, scores, row_bytes
            )
            shares = to_weights(scores, count, blocks, a.tokens, 0, a.scale, value_bytes)
            result = a.result + begin * 4
            panels, inputs = a.head_dim // WIDTH, blocks * WIDTH
            multiply(scores, row_bytes, count, values, panels, inputs, result, width * 4)
            scale_rows(result, width * 4, count, a.head_dim, shares)

    return Kernel(see, _FIELDS, ["scale"], form)


@cache
def _arranging(value_bytes: int) -> Kernel:
    def arrange(pointer):
        """Keys and values of a picture's tokens as panels, some tokens at a time. Tokens that fill
        the last panel up have none, and count for nothing."""
        a = carray(pointer, 1)[0]
        together, panel_bytes = a.together, WIDTH * WIDTH * value_bytes
        while True:
            item = take(pointer, 0)
            if item >= a.items:
                break
            picture, block = item // a.blocks, item % a.blocks
            for head in range(a.heads):
                first = picture * a.heads + head
                keys = a.keys + (first * a.blocks + block) * WIDTH * a.head_dim * value_bytes
                values = a.values + first * a.head_dim * a.blocks * WIDTH * value_bytes
                values += block * panel_bytes
                for offset in range(0, WIDTH, together):
                    for index in range(0, a.head_dim, WIDTH):
                        at = (head * a.head_dim + index) * 4
                        of_both = splat(f32(0)), splat(f32(0))
                        for part in range(together):
                            token = block * WIDTH + offset + part
                            key, value = splat(f32(0)), splat(f32(0))
                            if token < a.tokens:
                                row = picture * a.tokens + token
                                key = load(a.k + row * a.key_bytes + at)
                                value = load(a.v + row * a.row_bytes + at)
                            of_both = of_both[1], value
                            to = keys + index // together * VECTOR_BYTES + (offset + part) * 4
                            scatter_kept(to, VECTOR_BYTES, key, value_bytes)
                        to = values + index // WIDTH * a.blocks * panel_bytes
                        to += offset // together * VECTOR_BYTES
                        if together == 1:
                            store(to, of_both[1])
                        else:
                            store_pairs(to, of_both[0], of_both[1])

    fields = "items blocks tokens heads head_dim together k key_bytes v row_bytes keys values"
    return Kernel(arrange, fields, variant=value_bytes)


def prepare(dtype: torch.dtype) -> None:
    """Compiles what `see` needs, lest the first picture wait for it."""
    _arranging(dtype.itemsize)
    _kernel(dtype.itemsize)


def rows_of(x: Tensor) -> tuple[Tensor, int]:
    """[..., width] as float32 [rows, width], each row a block of memory, and the bytes from one to
    the next."""
    rows = x.float().flatten(0, -2)
    rows = rows if rows.stride(1) == 1 else rows.contiguous()
    return rows, 4 * rows.stride(0)


def see(q: Tensor, k: Tensor, v: Tensor, head_dim: int, dtype: torch.dtype) -> Tensor:
    """[N, tokens, heads * head_dim] of each; `head_dim` is a multiple of 16.

    Args:
        dtype: what queries, keys, values and weights are rounded to.
    """
    pictures, tokens, width = q.shape
    heads, blocks = width // head_dim, -(-tokens // WIDTH)
    together = inputs_together(dtype.itemsize)
    q = q.contiguous() if q.dtype == dtype else rounded(q)
    k, key_bytes = rows_of(k)
    v, row_bytes = rows_of(v)
    keys, values = (
        torch.empty(pictures * heads * blocks * WIDTH * head_dim, dtype=dtype) for _ in range(2)
    )
    _arranging(dtype.itemsize).run(
        items=pictures * blocks,
        blocks=blocks,
        tokens=tokens,
        heads=heads,
        head_dim=head_dim,
        together=together,
        k=k,
        key_bytes=key_bytes,
        v=v,
        row_bytes=row_bytes,
        keys=keys,
        values=values,
    )
    result = torch.empty(pictures, tokens, width)
    scores = torch.empty(torch.get_num_threads(), ROWS * (blocks + 1) * WIDTH)
    parts = -(-tokens // ROWS)
    _kernel(dtype.itemsize).run(
        items=pictures * heads * parts,
        parts=parts,
        tokens=tokens,
        heads=heads,
        head_dim=head_dim,
        queries=q,
        keys=keys,
        values=values,
        scores=scores,
        scores_bytes=4 * scores.shape[1],
        result=result,
        scale=head_dim**-0.5,
    )
    return result
