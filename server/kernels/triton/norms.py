"""RMSNorm in Triton, with the addition before it, and in two halves for heads over ranks.

One program a row, the whole row in registers: the row is read once, and the order of its sum
follows from the width alone, so equal rows give equal bits in any batch.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _add_rms_norm(
    x, branch, scale, weight, total, normed, x_stride,
    branch_stride, width, eps, ADD: tl.constexpr, SCALE: tl.constexpr,
    NORM: tl.constexpr, WIDTH: tl.constexpr,
) -> None:  # fmt: skip
    """Grid: rows. `total` is written where ADD, `normed` where NORM."""
    row, at = tl.program_id(0).to(tl.int64), tl.arange(0, WIDTH)
    real = at < width
    kind = x.dtype.element_ty
    value = tl.load(x + row * x_stride + at, mask=real, other=0.0).to(tl.float32)
    if ADD:
        added = tl.load(branch + row * branch_stride + at, mask=real, other=0.0).to(tl.float32)
        if SCALE:
            added *= tl.load(scale + at, mask=real, other=0.0).to(tl.float32)
            added = added.to(kind).to(tl.float32)
        rounded = (value + added).to(kind)
        tl.store(total + row * width + at, rounded, mask=real)
        value = rounded.to(tl.float32)
    if NORM:
        root = tl.rsqrt(tl.sum(value * value, 0) / width + eps)
        scaled = (value * root).to(kind).to(tl.float32)
        scaled *= tl.load(weight + at, mask=real, other=0.0).to(tl.float32)
        tl.store(normed + row * width + at, scaled.to(kind), mask=real)


@triton.jit
def _square_sums(x, y, sums, x_stride, y_stride, width, WIDTH: tl.constexpr) -> None:
    """Grid: rows. `sums` is [2, rows]."""
    row, at = tl.program_id(0).to(tl.int64), tl.arange(0, WIDTH)
    real = at < width
    first = tl.load(x + row * x_stride + at, mask=real, other=0.0).to(tl.float32)
    second = tl.load(y + row * y_stride + at, mask=real, other=0.0).to(tl.float32)
    tl.store(sums + row, tl.sum(first * first, 0))
    tl.store(sums + tl.num_programs(0) + row, tl.sum(second * second, 0))


@triton.jit
def _divide_by_root(
    x, sums, weight, out, x_stride, width, full_width, eps,
    WIDTH: tl.constexpr,
) -> None:  # fmt: skip
    """Grid: rows."""
    row, at = tl.program_id(0).to(tl.int64), tl.arange(0, WIDTH)
    real = at < width
    root = tl.rsqrt(tl.load(sums + row) / full_width + eps)
    value = tl.load(x + row * x_stride + at, mask=real, other=0.0).to(tl.float32)
    scaled = (value * root).to(out.dtype.element_ty).to(tl.float32)
    scaled *= tl.load(weight + at, mask=real, other=0.0).to(tl.float32)
    tl.store(out + row * width + at, scaled.to(out.dtype.element_ty), mask=real)


def add_rms_norm(
    x: Tensor,
    branch: Tensor | None = None,
    scale: Tensor | None = None,
    weight: Tensor | None = None,
    eps: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """x + scale * branch, and its RMSNorm; each only where it has what it needs, the other result
    is then not to be used."""
    rows = _rows(x)
    added = rows if branch is None else _rows(branch)
    total = x.new_empty((0,) if branch is None else x.shape)
    normed = x.new_empty((0,) if weight is None else x.shape)
    width = x.shape[-1]
    _add_rms_norm[(len(rows),)](
        rows,
        added,
        x if scale is None else scale,
        x if weight is None else weight,
        total,
        normed,
        rows.stride(0),
        added.stride(0),
        width,
        eps,
        ADD=branch is not None,
        SCALE=scale is not None,
        NORM=weight is not None,
        WIDTH=triton.next_power_of_2(width),
        num_warps=8,
    )
    return total, normed


def square_sums(x: Tensor, y: Tensor) -> Tensor:
    """See `Ops.square_sums`."""
    first, second = _rows(x), _rows(y)
    sums = torch.empty(2, *x.shape[:-1], 1, dtype=torch.float32, device=x.device)
    width = x.shape[-1]
    _square_sums[(len(first),)](
        first,
        second,
        sums,
        first.stride(0),
        second.stride(0),
        width,
        WIDTH=triton.next_power_of_2(width),
        num_warps=8,
    )
    return sums


def divide_by_root(x: Tensor, squares: Tensor, width: int, weight: Tensor, eps: float) -> Tensor:
    """See `Ops.divide_by_root`."""
    rows = _rows(x)
    out = x.new_empty(x.shape)
    _divide_by_root[(len(rows),)](
        rows,
        squares.contiguous(),
        weight,
        out,
        rows.stride(0),
        x.shape[-1],
        width,
        eps,
        WIDTH=triton.next_power_of_2(x.shape[-1]),
        num_warps=8,
    )
    return out


def _rows(x: Tensor) -> Tensor:
    """[rows, width] with neighbouring elements side by side; a copy only where a view cannot be."""
    rows = x.reshape(-1, x.shape[-1])
    return rows if rows.stride(1) == 1 else rows.contiguous()
