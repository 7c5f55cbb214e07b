"""Norms, rotation and activations in one pass each, where torch takes several."""

from __future__ import annotations

import numpy as np
import torch
from numba import carray, njit
from torch import Tensor

from server.kernels.attention import AttentionBatch, KVCache
from server.kernels.cpu.attention import BLOCK_SIZE, CpuBatch, pages
from server.kernels.cpu.team import Kernel
from server.kernels.cpu.vectors import (
    VECTOR_BYTES,
    WIDTH,
    exp,
    f32,
    fma,
    load,
    load_index,
    load_one,
    splat,
    store,
    store_bfloat16,
    store_one,
    store_one_bfloat16,
    take,
    total,
)
from server.kernels.ops import Rotary, TorchOps


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
            value = load(x + at)
            if a.branch:
                value = value + load(branch + at)
                store(added + at, value)
            squares = fma(value, value, squares)
        factor = splat(f32(1) / np.sqrt(total(squares) / f32(a.width) + a.eps))
        source = added if a.branch else x
        for at in range(0, width_bytes, VECTOR_BYTES):
            value = load(source + at) * factor * load(a.weight + at)
            store(a.normed + offset + at, value)


def _activate(pointer):
    a = carray(pointer, 1)[0]
    width_bytes = a.width * 4
    one, minus_one = splat(f32(1)), splat(f32(-1))
    while True:
        row = take(pointer, 0)
        if row >= a.items:
            break
        for at in range(0, width_bytes, VECTOR_BYTES):
            gate = load(a.x + 2 * row * width_bytes + at)
            up = load(a.x + (2 * row + 1) * width_bytes + at)
            store(a.result + row * width_bytes + at, gate / (one + exp(gate * minus_one)) * up)


@njit
def _rotated(x, cosines, sines, at, half_bytes):
    """Sixteen elements of a head's first half, and those of its second, after the rotation."""
    low, high = load(x + at), load(x + half_bytes + at)
    cosine, sine = load(cosines + at), load(sines + at)
    return low * cosine + high * sine * splat(f32(-1)), high * cosine + low * sine


@njit(inline="always")
def _keep(cache, index, x, value_bytes):
    """Sixteen values into the KV cache, which holds float32 or bfloat16."""
    if value_bytes == 2:
        store_bfloat16(cache + 2 * index, x)
    else:
        store(cache + 4 * index, x)


@njit(inline="always")
def _keep_one(cache, index, x, value_bytes):
    if value_bytes == 2:
        store_one_bfloat16(cache + 2 * index, x)
    else:
        store_one(cache + 4 * index, x)


def _place(pointer):
    a = carray(pointer, 1)[0]
    head_bytes = a.head_dim * 4
    half_bytes = head_bytes // 2
    while True:
        token = take(pointer, 0)
        if token >= a.items:
            break
        x = a.x + token * (a.heads + 2 * a.kv_heads) * head_bytes
        cosines, sines = a.cosines + token * half_bytes, a.sines + token * half_bytes
        for head in range(a.heads):
            to = a.queries + (token * a.heads + head) * head_bytes
            for at in range(0, half_bytes, VECTOR_BYTES):
                low, high = _rotated(x + head * head_bytes, cosines, sines, at, half_bytes)
                store(to + at, low)
                store(to + half_bytes + at, high)
        position = load_index(a.places + 8 * token)
        block, offset = position // BLOCK_SIZE, position % BLOCK_SIZE
        for head in range(a.kv_heads):
            page = (block * a.kv_heads + head) * a.head_dim * BLOCK_SIZE
            key = x + (a.heads + head) * head_bytes
            value = x + (a.heads + a.kv_heads + head) * head_bytes
            place = page + offset * a.head_dim
            for at in range(0, half_bytes, VECTOR_BYTES):
                low, high = _rotated(key, cosines, sines, at, half_bytes)
                # Rotated in place, to be read one by one.
                store(key + at, low)
                store(key + half_bytes + at, high)
            for index in range(0, a.head_dim, WIDTH):
                _keep(a.values, place + index, load(value + 4 * index), a.value_bytes)
            for index in range(a.head_dim):
                place = page + index * WIDTH + offset
                _keep_one(a.keys, place, load_one(key + 4 * index), a.value_bytes)


NORMALISE = Kernel(_normalise, "items width x branch added weight normed", ["eps"])
ACTIVATE = Kernel(_activate, "items width x result")
PLACE = Kernel(
    _place,
    "items heads kv_heads head_dim x cosines sines places queries keys values value_bytes",
)


class CpuOps(TorchOps):
    """`TorchOps` for float32, but for what only the vision tower asks for."""

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        if x.shape[-1] % WIDTH:
            return super().rms_norm(x, weight, eps)
        return self._normalise(x, None, weight, eps)[1]

    def add_rms_norm(
        self, x: Tensor, branch: Tensor, weight: Tensor, eps: float, scale: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        if scale is not None or x.shape[-1] % WIDTH:
            return super().add_rms_norm(x, branch, weight, eps, scale)
        return self._normalise(x, branch, weight, eps)

    def _normalise(
        self, x: Tensor, branch: Tensor | None, weight: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        x = x.contiguous()
        normed = torch.empty_like(x)
        added = x if branch is None else torch.empty_like(x)
        branch = None if branch is None else branch.contiguous()
        NORMALISE.run(
            items=x.numel() // x.shape[-1],
            width=x.shape[-1],
            x=x.data_ptr(),
            branch=0 if branch is None else branch.data_ptr(),
            added=added.data_ptr(),
            weight=weight.data_ptr(),
            normed=normed.data_ptr(),
            eps=eps,
        )
        return added, normed

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        rows, width = len(gate_up), gate_up.shape[1] // 2
        if width % WIDTH:
            return super().silu_mul(gate_up)
        gate_up = gate_up.contiguous()
        result = gate_up.new_empty(rows, width)
        ACTIVATE.run(items=rows, width=width, x=gate_up.data_ptr(), result=result.data_ptr())
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
        qkv = qkv.contiguous()
        tokens, _, head_dim = qkv.shape
        queries = qkv.new_empty(tokens, heads[0], head_dim)
        keys, values = pages(cache, layer)
        PLACE.run(
            items=tokens,
            heads=heads[0],
            kv_heads=heads[1],
            head_dim=head_dim,
            x=qkv.data_ptr(),
            cosines=rotary.cos.data_ptr(),
            sines=rotary.sin.data_ptr(),
            places=batch.kv_indices.data_ptr(),
            queries=queries.data_ptr(),
            keys=keys.data_ptr(),
            values=values.data_ptr(),
            value_bytes=values.itemsize,
        )
        return batch.attend(layer, queries, cache)
