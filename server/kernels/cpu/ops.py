"""Norms, rotation and activations in one pass each, where torch takes several."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numba import carray, njit
from torch import Tensor

from server.kernels.attention import AttentionBatch, KVCache
from server.kernels.cpu.attention import BLOCK_SIZE, CpuBatch, pages
from server.kernels.cpu.sight import prepare, rows_of, see
from server.kernels.cpu.team import Kernel
from server.kernels.cpu.vectors import (
    VECTOR_BYTES,
    WIDTH,
    f32,
    fma,
    gelu,
    load,
    load_index,
    load_one,
    scatter_kept,
    silu,
    splat,
    store,
    store_kept,
    store_one,
    store_pairs,
    store_seconds,
    take,
    total,
)
from server.kernels.ops import Rotary, TorchOps

BENT_VECTORS = 512
"""That a thread takes at a time."""


@njit
def _sum(x, branch, scale, at):
    """Sixteen elements of x + scale * branch, which lie `at` behind the begin of each."""
    other = load(branch + at)
    if scale:
        other = other * load(scale + at)
    return load(x + at) + other


def _normalise(pointer):
    a = carray(pointer, 1)[0]
    width_bytes = a.width * 4
    while True:
        row = take(pointer, 0)
        if row >= a.items:
            break
        offset = row * width_bytes
        x, branch, added = a.x + offset, a.branch + offset, a.added + offset
        squares = splat(f32(0))
        for at in range(0, width_bytes, VECTOR_BYTES):
            if a.branch:
                value = _sum(x, branch, a.scale, at)
                store(added + at, value)
            else:
                value = load(x + at)
            squares = fma(value, value, squares)
        factor = splat(f32(1) / np.sqrt(total(squares) / f32(a.width) + a.eps))
        source = added if a.branch else x
        normed = a.normed + row * a.width * a.row_bytes
        for index in range(0, a.width, WIDTH):
            value = load(source + 4 * index) * factor * load(a.weight + 4 * index)
            store_kept(normed, index, value, a.row_bytes)


def _square_sums(pointer):
    a = carray(pointer, 1)[0]
    while True:
        row = take(pointer, 0)
        if row >= a.items:
            break
        x, squares = a.x + row * a.row_bytes, splat(f32(0))
        for at in range(0, a.width * 4, VECTOR_BYTES):
            value = load(x + at)
            squares = fma(value, value, squares)
        store_one(a.sums + 4 * row, total(squares))


def _divide_by_root(pointer):
    a = carray(pointer, 1)[0]
    while True:
        row = take(pointer, 0)
        if row >= a.items:
            break
        x, result = a.x + row * a.row_bytes, a.result + row * a.width * 4
        mean = load_one(a.squares + 4 * row) / f32(a.full_width)
        factor = splat(f32(1) / np.sqrt(mean + a.eps))
        for at in range(0, a.width * 4, VECTOR_BYTES):
            store(result + at, load(x + at) * factor * load(a.weight + at))


def _add(pointer):
    a = carray(pointer, 1)[0]
    width_bytes = a.width * 4
    while True:
        row = take(pointer, 0)
        if row >= a.items:
            break
        offset = row * width_bytes
        for at in range(0, width_bytes, VECTOR_BYTES):
            value = _sum(a.x + offset, a.branch + offset, a.scale, at)
            store(a.added + offset + at, value)


def _activate(pointer):
    a = carray(pointer, 1)[0]
    while True:
        row = take(pointer, 0)
        if row >= a.items:
            break
        gates = a.x + 2 * row * a.width * 4
        ups, result = gates + a.width * 4, a.result + row * a.width * a.row_bytes
        for index in range(0, a.width, WIDTH):
            value = silu(load(gates + 4 * index)) * load(ups + 4 * index)
            store_kept(result, index, value, a.row_bytes)


def _bend(pointer):
    a = carray(pointer, 1)[0]
    while True:
        item = take(pointer, 0)
        if item >= a.items:
            break
        end = min(a.vectors, (item + 1) * BENT_VECTORS)
        for vector in range(item * BENT_VECTORS, end):
            value = gelu(load(a.x + vector * VECTOR_BYTES))
            store_kept(a.result, vector * WIDTH, value, a.row_bytes)


@njit
def _rotated(x, cosines, sines, at, half_bytes):
    """Sixteen elements of a head's first half, and those of its second, after the rotation."""
    low, high = load(x + at), load(x + half_bytes + at)
    cosine, sine = load(cosines + at), load(sines + at)
    return low * cosine + high * sine * splat(f32(-1)), high * cosine + low * sine


def _place(pointer):
    a = carray(pointer, 1)[0]
    half_dim, value_bytes = a.head_dim // 2, a.value_bytes
    token_bytes = (a.heads + 2 * a.kv_heads) * a.head_dim * 4
    while True:
        token = take(pointer, 0)
        if token >= a.items:
            break
        x = a.x + token * token_bytes
        angles = load_index(a.positions + 8 * token) * half_dim * 4
        cosines, sines = a.cosines + angles, a.sines + angles
        for head in range(a.heads):
            to = a.queries + (token * a.heads + head) * a.head_dim * value_bytes
            for index in range(0, half_dim, WIDTH):
                low, high = _rotated(
                    x + head * a.head_dim * 4, cosines, sines, 4 * index, 4 * half_dim
                )
                store_kept(to, index, low, value_bytes)
                store_kept(to, half_dim + index, high, value_bytes)
        position = load_index(a.places + 8 * token)
        block, offset = position // BLOCK_SIZE, position % BLOCK_SIZE
        preceded = token > 0 and load_index(a.places + 8 * token - 8) == position - 1
        follows = token + 1 < a.items and load_index(a.places + 8 * token + 8) == position + 1
        for head in range(a.kv_heads):
            page = (block * a.kv_heads + head) * a.head_dim * BLOCK_SIZE * value_bytes
            key = x + (a.heads + head) * a.head_dim * 4
            for index in range(0, half_dim, WIDTH):
                low, high = _rotated(key, cosines, sines, 4 * index, 4 * half_dim)
                to = a.keys + page + index // a.together * VECTOR_BYTES + offset * 4
                scatter_kept(to, VECTOR_BYTES, low, value_bytes)
                to += half_dim // a.together * VECTOR_BYTES
                scatter_kept(to, VECTOR_BYTES, high, value_bytes)
            value = key + a.kv_heads * a.head_dim * 4
            for index in range(0, a.head_dim, WIDTH):
                to = a.values + page + index * WIDTH * value_bytes
                to += offset // a.together * VECTOR_BYTES
                if a.together == 1:
                    store(to, load(value + 4 * index))
                elif offset % 2 == 0:
                    # A value whose neighbour is not known yet must not lie together with anything.
                    neighbour = splat(f32(0))
                    if follows:
                        neighbour = load(value + token_bytes + 4 * index)
                    store_pairs(to, load(value + 4 * index), neighbour)
                elif not preceded:
                    store_seconds(to, load(value + 4 * index))


NORMALISE = Kernel(_normalise, "items width x branch scale added weight normed row_bytes", ["eps"])
SQUARE_SUMS = Kernel(_square_sums, "items width x row_bytes sums")
DIVIDE_BY_ROOT = Kernel(
    _divide_by_root, "items width full_width x row_bytes squares weight result", ["eps"]
)
ADD = Kernel(_add, "items width x branch scale added")
BEND = Kernel(_bend, "items vectors x result row_bytes")
ACTIVATE = Kernel(_activate, "items width x result row_bytes")
PLACE = Kernel(
    _place,
    "items heads kv_heads head_dim x positions cosines sines places queries keys values "
    "value_bytes together",
)


class CpuOps(TorchOps):
    """For float32 hidden states."""

    def __init__(self, dtype: torch.dtype, rows: torch.dtype | None = None) -> None:
        """
        Args:
            dtype: of products, float32 or bfloat16.
            rows: in which what goes into a product is made, if not `dtype`.
        """
        self._dtype = dtype
        self._rows = rows or dtype
        self._angles: dict[tuple[int, float], Rotary] = {}
        prepare(dtype)

    def see(self, q: Tensor, k: Tensor, v: Tensor, head_dim: int) -> Tensor:
        if head_dim % WIDTH:
            return super().see(q, k, v, head_dim)
        return see(q, k, v, head_dim, self._dtype)

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        if x.shape[-1] % WIDTH:
            return super().rms_norm(x, weight, eps).to(self._rows)
        return self._normalise(x, None, weight, eps)[1]

    def add_rms_norm(
        self, x: Tensor, branch: Tensor, weight: Tensor, eps: float, scale: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        if x.shape[-1] % WIDTH:
            return super().add_rms_norm(x, branch, weight, eps, scale)
        return self._normalise(x, branch, weight, eps, scale)

    def _normalise(
        self,
        x: Tensor,
        branch: Tensor | None,
        weight: Tensor,
        eps: float,
        scale: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        x = x.contiguous()
        normed = torch.empty_like(x, dtype=self._rows)
        added = x if branch is None else torch.empty_like(x)
        branch = None if branch is None else branch.float().contiguous()
        NORMALISE.run(
            items=x.numel() // x.shape[-1],
            width=x.shape[-1],
            x=x,
            branch=branch,
            scale=scale,
            added=added,
            weight=weight,
            normed=normed,
            row_bytes=normed.itemsize,
            eps=eps,
        )
        return added, normed

    def add(self, x: Tensor, branch: Tensor, scale: Tensor | None = None) -> Tensor:
        if x.shape[-1] % WIDTH:
            return super().add(x, branch, scale)
        x, branch = x.contiguous(), branch.float().contiguous()
        added = torch.empty_like(x)
        ADD.run(
            items=x.numel() // x.shape[-1],
            width=x.shape[-1],
            x=x,
            branch=branch,
            scale=scale,
            added=added,
        )
        return added

    def square_sums(self, x: Tensor, y: Tensor) -> Tensor:
        width = x.shape[-1]
        if width % WIDTH:
            return super().square_sums(x, y)
        sums = torch.empty(2, *x.shape[:-1], 1)
        for one, of_one in zip((x, y), sums, strict=True):
            rows, row_bytes = rows_of(one)
            SQUARE_SUMS.run(items=len(rows), width=width, x=rows, row_bytes=row_bytes, sums=of_one)
        return sums

    def divide_by_root(
        self, x: Tensor, squares: Tensor, width: int, weight: Tensor, eps: float
    ) -> Tensor:
        if x.shape[-1] % WIDTH:
            return super().divide_by_root(x, squares, width, weight, eps)
        rows, row_bytes = rows_of(x)
        result = torch.empty(x.shape)
        DIVIDE_BY_ROOT.run(
            items=len(rows),
            width=x.shape[-1],
            full_width=width,
            x=rows,
            row_bytes=row_bytes,
            squares=squares.contiguous(),
            weight=weight,
            result=result,
            eps=eps,
        )
        return result

    def gelu(self, x: Tensor) -> Tensor:
        if x.numel() % WIDTH:
            return super().gelu(x).to(self._rows)
        x = x.float().contiguous()
        result = torch.empty_like(x, dtype=self._rows)
        vectors = x.numel() // WIDTH
        BEND.run(
            items=-(-vectors // BENT_VECTORS),
            vectors=vectors,
            x=x,
            result=result,
            row_bytes=result.itemsize,
        )
        return result

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        rows, width = len(gate_up), gate_up.shape[1] // 2
        if width % WIDTH:
            return super().silu_mul(gate_up).to(self._rows)
        gate_up = gate_up.float().contiguous()
        result = torch.empty(rows, width, dtype=self._rows)
        ACTIVATE.run(items=rows, width=width, x=gate_up, result=result, row_bytes=result.itemsize)
        return result

    def rotate_and_attend(
        self,
        layer: int,
        qkv: Tensor,
        rotary: Rotary,
        *,
        heads: list[int],
        cache: KVCache,
        batch: AttentionBatch,
    ) -> Tensor:
        if not isinstance(batch, CpuBatch):
            return super().rotate_and_attend(
                layer, qkv, rotary, heads=heads, cache=cache, batch=batch
            )
        qkv = qkv.float().contiguous()
        tokens, _, head_dim = qkv.shape
        keys, values = pages(cache, layer)
        queries = torch.empty(tokens, heads[0], head_dim, dtype=keys.dtype)
        angles = self._angles_for(rotary, batch.keys)
        PLACE.run(
            items=tokens,
            heads=heads[0],
            kv_heads=heads[1],
            head_dim=head_dim,
            x=qkv,
            positions=rotary.positions,
            cosines=angles.cos,
            sines=angles.sin,
            places=batch.kv_indices,
            queries=queries,
            keys=keys,
            values=values,
            value_bytes=values.itemsize,
            together=keys.shape[-1],
        )
        return batch.attend(layer, queries, cache)

    def _angles_for(self, rotary: Rotary, contexts: int) -> Rotary:
        """Those of all positions in contexts of such lengths; looked up, not computed anew."""
        kind = (rotary.head_dim, rotary.theta)
        known = self._angles.get(kind)
        if known is None or len(known.positions) < contexts:
            known = self._angles[kind] = replace(rotary, positions=torch.arange(2 * contexts))
        return known
