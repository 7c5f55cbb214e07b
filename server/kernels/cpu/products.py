"""Products of float32 rows with matrices that are kept in bfloat16 or in 8-bit integers.

Widening both is exact and costs a few instructions, and a matrix that is read from memory once for
a few rows takes the time that its bytes take. It lies in panels of sixteen outputs, input by input,
so that one vector holds what an input adds to them. Sums run over the inputs in order, whatever
rows stand beside.
"""

from __future__ import annotations

import torch
from numba import carray, njit
from torch import Tensor
from torch.nn import functional

from server.kernels.cpu.team import Kernel
from server.kernels.cpu.vectors import (
    VECTOR_BYTES,
    WIDTH,
    f32,
    fma,
    load,
    load_bfloat16,
    load_int8,
    load_one,
    splat,
    store,
    take,
)

ROWS = 6
"""Multiplied at a time: the registers of AVX2 hold their sums."""

BLOCK_ROWS, BLOCK_PANELS, DEPTH = 96, 8, 512
"""What one thread takes where there are many rows, and how many inputs at a time: a panel's part
and that of six rows stay in the innermost cache."""

SHARES = 8
"""Parts for each thread where there are few rows, so that none waits long for another."""

_FIELDS = "items groups group rows inputs panels depth weight_bytes x weights scales bias result"


@njit(inline="always")
def _widened(weights, index, weight_bytes):
    if weight_bytes == 1:
        return load_int8(weights + index * WIDTH)
    return load_bfloat16(weights + index * 2 * WIDTH)


@njit
def _one_row(x, weights, weight_bytes, depth, total):
    for index in range(depth):
        weight = _widened(weights, index, weight_bytes)
        total = fma(splat(load_one(x + 4 * index)), weight, total)
    return total


@njit
def _six_rows(a, b, c, d, e, f, weights, weight_bytes, depth, totals):
    to_a, to_b, to_c, to_d, to_e, to_f = totals
    for index in range(depth):
        weight, at = _widened(weights, index, weight_bytes), 4 * index
        to_a = fma(splat(load_one(a + at)), weight, to_a)
        to_b = fma(splat(load_one(b + at)), weight, to_b)
        to_c = fma(splat(load_one(c + at)), weight, to_c)
        to_d = fma(splat(load_one(d + at)), weight, to_d)
        to_e = fma(splat(load_one(e + at)), weight, to_e)
        to_f = fma(splat(load_one(f + at)), weight, to_f)
    return to_a, to_b, to_c, to_d, to_e, to_f


@njit
def _begun(result, start):
    """The sum so far."""
    return load(result) if start else splat(f32(0))


@njit
def _end(to, total, scales, bias):
    """Stores a sum; where it is whole, scaled and with its bias."""
    if scales:
        total = total * load(scales)
    if bias:
        total = total + load(bias)
    store(to, total)


@njit
def _tile(count, x, row_bytes, weights, weight_bytes, depth, start, to, result_bytes, scales, bias):
    """Adds the products of up to six rows with one panel to the result. The last row stands in for
    those that are missing."""
    if count == 1:
        total = _one_row(x, weights, weight_bytes, depth, _begun(to, start))
        _end(to, total, scales, bias)
        return
    b, c, d = min(1, count - 1), min(2, count - 1), min(3, count - 1)
    e, f = min(4, count - 1), min(5, count - 1)
    to_b, to_c, to_d = to + b * result_bytes, to + c * result_bytes, to + d * result_bytes
    to_e, to_f = to + e * result_bytes, to + f * result_bytes
    totals = _six_rows(
        x,
        x + b * row_bytes,
        x + c * row_bytes,
        x + d * row_bytes,
        x + e * row_bytes,
        x + f * row_bytes,
        weights,
        weight_bytes,
        depth,
        (
            _begun(to, start),
            _begun(to_b, start),
            _begun(to_c, start),
            _begun(to_d, start),
            _begun(to_e, start),
            _begun(to_f, start),
        ),
    )
    _end(to, totals[0], scales, bias)
    _end(to_b, totals[1], scales, bias)
    _end(to_c, totals[2], scales, bias)
    _end(to_d, totals[3], scales, bias)
    _end(to_e, totals[4], scales, bias)
    _end(to_f, totals[5], scales, bias)


def _multiply(pointer):
    a = carray(pointer, 1)[0]
    row_bytes, result_bytes = a.inputs * 4, a.panels * VECTOR_BYTES
    while True:
        item = take(pointer, 0)
        if item >= a.items:
            break
        first_row = item // a.groups * BLOCK_ROWS
        end_row = min(a.rows, first_row + BLOCK_ROWS)
        first_panel = item % a.groups * a.group
        for start in range(0, a.inputs, a.depth):
            depth = min(a.depth, a.inputs - start)
            whole = start + depth == a.inputs
            for panel in range(first_panel, min(a.panels, first_panel + a.group)):
                offset = panel * VECTOR_BYTES
                weights = a.weights + (panel * a.inputs + start) * WIDTH * a.weight_bytes
                scales = a.scales + offset if a.scales and whole else 0
                bias = a.bias + offset if a.bias and whole else 0
                for row in range(first_row, end_row, ROWS):
                    _tile(
                        min(ROWS, end_row - row),
                        a.x + row * row_bytes + start * 4,
                        row_bytes,
                        weights,
                        a.weight_bytes,
                        depth,
                        start,
                        a.result + row * result_bytes + offset,
                        result_bytes,
                        scales,
                        bias,
                    )


MULTIPLY = Kernel(_multiply, _FIELDS)


def in_panels(weight: Tensor) -> Tensor:
    """[outputs, inputs] as [panels, inputs, 16]; missing outputs are zeros."""
    outputs, inputs = weight.shape
    padded = functional.pad(weight, (0, 0, 0, -outputs % WIDTH))
    return padded.view(-1, WIDTH, inputs).transpose(1, 2).contiguous()


def multiply(
    x: Tensor, panels: Tensor, bias: Tensor | None, scales: Tensor | None = None
) -> Tensor:
    """float32 [rows, inputs] with a matrix in panels: [rows, 16 * panels].

    Args:
        panels: bfloat16 or int8.
        bias: float32 for every output that the panels have, as are the scales that the products
            are multiplied with before.
    """
    rows, inputs = x.shape
    x = x.contiguous()
    count = len(panels)
    result = torch.empty(rows, count * WIDTH)
    few = rows <= ROWS
    group = -(-count // (SHARES * torch.get_num_threads())) if few else BLOCK_PANELS
    groups = -(-count // group)
    MULTIPLY.run(
        items=groups * -(-rows // BLOCK_ROWS),
        groups=groups,
        group=group,
        rows=rows,
        inputs=inputs,
        panels=count,
        depth=inputs if few else DEPTH,
        weight_bytes=panels.itemsize,
        x=x.data_ptr(),
        weights=panels.data_ptr(),
        scales=0 if scales is None else scales.data_ptr(),
        bias=0 if bias is None else bias.data_ptr(),
        result=result.data_ptr(),
    )
    return result
