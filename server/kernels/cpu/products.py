"""Products of rows with matrices that are kept in bfloat16 or in 8-bit integers.

A matrix that is read from memory once for a few rows takes the time that its bytes take; with many
rows, blocks of rows and panels stay in a core's own caches. Sums run over the inputs in order,
whatever rows stand beside; see `tiles`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from numba import carray, njit
from torch import Tensor
from torch.nn import functional

from server.kernels.cpu.team import Kernel
from server.kernels.cpu.tiles import PANELS, ROWS, SIZES, Form, compiled, inputs_together, tile_of
from server.kernels.cpu.vectors import VECTOR_BYTES, WIDTH, gelu, load, silu, store_kept, take
from server.kernels.ops import Activation

BLOCK_ROWS, BLOCK_PANELS, DEPTH = 192, 8, 1024
"""What one thread takes where there are many rows, and how many inputs at a time."""

(FEWER_ROWS, TILE_PANELS), _ = list(SIZES.items())[-2:]
"""Tiles of this size and of the largest, which are as wide, share many rows among them."""

SHARES = 8
"""Parts for each thread where there are few rows, so that none waits long for another."""

_TOGETHER = {torch.bfloat16: torch.int32, torch.int8: torch.int16}

ROUNDED_VECTORS = 512
"""That a thread takes at a time."""

_FIELDS = (
    "items threads groups group rows inputs panels depth x weights scales bias result "
    "activation result_bytes sums sums_bytes"
)
_ACTIVATIONS: dict[Activation | None, int] = {None: 0, "gelu": 1, "silu_mul": 2}
"""As kernels call them. Sums wait for theirs in memory of each thread, near its core."""


@njit
def _activate(a, sums, sums_bytes, first_row, end_row, first_panel, end_panel):
    """Writes what the activation makes of some sums."""
    for row in range(first_row, end_row):
        at = sums + (row - first_row) * sums_bytes
        index = (row * a.panels + first_panel) * WIDTH
        if a.activation == 1:
            for panel in range(end_panel - first_panel):
                value = gelu(load(at + panel * VECTOR_BYTES))
                store_kept(a.result, index + panel * WIDTH, value, a.result_bytes)
        else:
            for pair in range((end_panel - first_panel) // 2):
                gate = at + 2 * pair * VECTOR_BYTES
                value = silu(load(gate)) * load(gate + VECTOR_BYTES)
                store_kept(a.result, index // 2 + pair * WIDTH, value, a.result_bytes)


@njit
def _place(a, panel, start, weight_bytes):
    """The address of a panel's weights from an input on."""
    return a.weights + (panel * a.inputs + start) * WIDTH * weight_bytes


def _sweep(form: Form) -> Any:
    tile = tile_of(form)
    row_bytes, weight_bytes, together = form.row_bytes, form.weight_bytes, form.together
    # Widened weights take as many registers again: sums of six rows would be kept in memory.
    most = ROWS if row_bytes == 2 else FEWER_ROWS

    @compiled(form)
    def sweep(a, to, to_bytes, first_row, end_row, first_panel, end_panel, start, depth, following):
        """Some rows with some panels, whose inputs from `start` on come from the closest cache for
        all rows but the first ones. Weights at `following`, if not 0, will be next."""
        whole = start + depth == a.inputs
        stride = a.inputs * WIDTH * weight_bytes
        panel, done = first_panel, 1
        while panel < end_panel:
            offset = panel * VECTOR_BYTES
            row = first_row
            # Each tile asks for one of the panels that come next, as far as there are tiles.
            ahead, asked = following, TILE_PANELS
            if panel + TILE_PANELS < end_panel:
                ahead = _place(a, panel + TILE_PANELS, start, weight_bytes)
                asked = min(TILE_PANELS, end_panel - panel - TILE_PANELS)
            if a.rows <= ROWS:
                ahead = 0
            while row < end_row:
                left = end_row - row
                size = most
                if a.rows <= ROWS:
                    size = left
                elif left <= FEWER_ROWS or ROWS < left <= 2 * FEWER_ROWS:
                    size = FEWER_ROWS
                if asked == 0:
                    ahead = 0
                done = tile(
                    end_panel - panel,
                    size,
                    min(size, left),
                    a.x + (row * a.inputs + start) * row_bytes,
                    a.inputs * row_bytes,
                    _place(a, panel, start, weight_bytes),
                    stride,
                    depth // together,
                    to + (row - first_row) * to_bytes + (panel - first_panel) * VECTOR_BYTES,
                    to_bytes,
                    start,
                    a.scales + offset if a.scales and whole else 0,
                    a.bias + offset if a.bias and whole else 0,
                    ahead,
                    0,
                    0,
                )
                if ahead:
                    ahead += stride
                    asked -= 1
                row += size
            panel += done

    return sweep


@cache
def _kernel(form: Form) -> Kernel:
    sweep = _sweep(form)
    weight_bytes = form.weight_bytes

    def multiply(pointer):
        a = carray(pointer, 1)[0]
        sums = a.sums + take(pointer, 1) * a.sums_bytes
        while True:
            item = take(pointer, 0)
            if item >= a.items:
                break
            first_row = item // a.groups * BLOCK_ROWS
            end_row = min(a.rows, first_row + BLOCK_ROWS)
            first_panel = item % a.groups * a.group
            end_panel = min(a.panels, first_panel + a.group)
            to = a.result + (first_row * a.panels + first_panel) * VECTOR_BYTES
            to_bytes = a.panels * VECTOR_BYTES
            if a.activation:
                to, to_bytes = sums, a.group * VECTOR_BYTES
            for start in range(0, a.inputs, a.depth):
                depth = min(a.depth, a.inputs - start)
                following = 0
                if start + depth < a.inputs:
                    following = _place(a, first_panel, start + depth, weight_bytes)
                elif item + a.threads < a.items:  # which will be this thread's, most likely
                    panel = (item + a.threads) % a.groups * a.group
                    following = _place(a, panel, 0, weight_bytes)
                sweep(
                    a,
                    to,
                    to_bytes,
                    first_row,
                    end_row,
                    first_panel,
                    end_panel,
                    start,
                    depth,
                    following,
                )
            if a.activation:
                _activate(a, to, to_bytes, first_row, end_row, first_panel, end_panel)

    return Kernel(multiply, _FIELDS, variant=form)


def _round(pointer):
    a = carray(pointer, 1)[0]
    while True:
        item = take(pointer, 0)
        if item >= a.items:
            break
        end = min(a.vectors, (item + 1) * ROUNDED_VECTORS)
        for vector in range(item * ROUNDED_VECTORS, end):
            store_kept(a.result, vector * WIDTH, load(a.x + vector * VECTOR_BYTES), 2)


ROUND = Kernel(_round, "items vectors x result")


def rounded(x: Tensor) -> Tensor:
    """float32 to the nearest bfloat16."""
    if x.numel() % WIDTH:
        return x.bfloat16()
    x = x.contiguous()
    result = torch.empty_like(x, dtype=torch.bfloat16)
    vectors = x.numel() // WIDTH
    ROUND.run(items=-(-vectors // ROUNDED_VECTORS), vectors=vectors, x=x, result=result)
    return result


def in_panels(weight: Tensor) -> Tensor:
    """[outputs, inputs] as [panels, inputs / together, 16, together], see `tiles`; what is missing
    is zeros."""
    outputs, inputs = weight.shape
    together = inputs_together(weight.itemsize)
    padded = functional.pad(weight, (0, -inputs % together, 0, -outputs % WIDTH)).contiguous()
    # What lies together moves as one number: four times as fast.
    numbers = padded.view(_TOGETHER.get(weight.dtype, weight.dtype))
    parts = torch.unflatten(numbers, 0, (-1, WIDTH)).transpose(1, 2).contiguous()
    return torch.unflatten(parts.view(weight.dtype), 2, (WIDTH, together))


def in_turn(x: Tensor) -> Tensor:
    """The first half of the panels, or of what belongs to their outputs, in turn with the second:
    [2 * panels, ...] or [2 * outputs]."""
    parts = x if x.ndim > 1 else x.view(-1, WIDTH)
    return torch.stack(parts.chunk(2), dim=1).reshape(x.shape)


def multiply(
    x: Tensor,
    panels: Tensor,
    bias: Tensor | None,
    scales: Tensor | None = None,
    activation: Activation | None = None,
) -> Tensor:
    """Rows [rows, inputs] with a matrix in panels: float32 [rows, 16 * panels].

    Args:
        x: float32, or bfloat16 where the CPU multiplies that.
        panels: float32, bfloat16 or int8.
        bias: float32 for every output that the panels have, as are the scales that the products
            are multiplied with before.
        activation: what is made of these outputs, in the type of x. For `silu_mul` panels of gates
            and of ups take turns, and half as many outputs are left.
    """
    rows, inputs = x.shape
    count, steps, _, together = panels.shape
    x = functional.pad(x, (0, steps * together - inputs)) if inputs % together else x.contiguous()
    inputs = x.shape[1]
    outputs = count * WIDTH // (2 if activation == "silu_mul" else 1)
    result = torch.empty(rows, outputs, dtype=x.dtype if activation else torch.float32)
    few = rows <= ROWS
    group = BLOCK_PANELS
    if few:  # whole tiles for each
        group = PANELS * -(-count // (PANELS * SHARES * torch.get_num_threads()))
    groups = -(-count // group)
    sums = None
    if activation:
        sums = torch.empty(torch.get_num_threads(), min(rows, BLOCK_ROWS) * group * WIDTH)
    _kernel(Form(x.itemsize, panels.itemsize)).run(
        items=groups * -(-rows // BLOCK_ROWS),
        threads=torch.get_num_threads(),
        groups=groups,
        group=group,
        rows=rows,
        inputs=inputs,
        panels=count,
        depth=inputs if few else DEPTH,
        x=x,
        weights=panels,
        scales=scales,
        bias=bias,
        result=result,
        activation=_ACTIVATIONS[activation],
        result_bytes=result.itemsize,
        sums=sums,
        sums_bytes=0 if sums is None else 4 * sums.shape[1],
    )
    return result
