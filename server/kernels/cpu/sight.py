"""Attention of the vision tower: every token of a picture sees every token.

The keys of a head are a matrix whose outputs are tokens, and its values one whose inputs are. A
thread takes some queries of a head; their scores stay in its own cache until they are weights.
"""

from __future__ import annotations

from functools import cache

import torch
from numba import carray
from torch import Tensor
from torch.nn import functional

from server.kernels.cpu.attention import exponentiate, scale_rows
from server.kernels.cpu.team import Kernel
from server.kernels.cpu.tiles import ROWS, Form, compiled, inputs_together, tile_of
from server.kernels.cpu.vectors import VECTOR_BYTES, WIDTH, f32, splat, store, take

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
            shares = scores + count * row_bytes
            for index in range(count):
                row = scores + index * row_bytes
                share = f32(1) / exponentiate(row, blocks, a.tokens, a.scale, value_bytes)
                store(shares + index * VECTOR_BYTES, splat(share))
            result = a.result + begin * 4
            panels, inputs = a.head_dim // WIDTH, blocks * WIDTH
            multiply(scores, row_bytes, count, values, panels, inputs, result, width * 4)
            scale_rows(result, width * 4, count, a.head_dim, shares)

    return Kernel(see, _FIELDS, ["scale"], form)


def prepare(dtype: torch.dtype) -> None:
    """Compiles what `see` needs, lest the first picture wait for it."""
    _kernel(dtype.itemsize)


def see(q: Tensor, k: Tensor, v: Tensor, head_dim: int, dtype: torch.dtype) -> Tensor:
    """[N, tokens, heads * head_dim] of each; `head_dim` is a multiple of 16.

    Args:
        dtype: what queries, keys, values and weights are rounded to.
    """
    pictures, tokens, width = q.shape
    heads = width // head_dim
    together = inputs_together(dtype.itemsize)
    missing = -tokens % WIDTH
    q, k, v = q.to(dtype).contiguous(), k.to(dtype), v.to(dtype)
    k, v = (functional.pad(x, (0, 0, 0, missing)) for x in (k, v))
    # [N, heads, panels, steps over the inputs, 16, inputs that lie together]
    keys = k.view(pictures, -1, WIDTH, heads, head_dim // together, together)
    keys = keys.permute(0, 3, 1, 4, 2, 5).contiguous()
    values = v.view(pictures, -1, together, heads, head_dim // WIDTH, WIDTH)
    values = values.permute(0, 3, 4, 1, 5, 2).contiguous()
    result = torch.empty(pictures, tokens, width)
    scores = torch.empty(torch.get_num_threads(), ROWS * (tokens + missing + WIDTH))
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
