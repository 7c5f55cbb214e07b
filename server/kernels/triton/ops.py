"""The operations between matrix products, fused in Triton: each reads its inputs once.

Programs work on rows, or on parts of a row, and share nothing: no atomics, no order between
programs, so a row's bits are the same in any batch.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from server.kernels.attention import AttentionBatch, KVCache
from server.kernels.ops import TORCH, Rotary
from server.kernels.triton import norms

HEADS_PER_PROGRAM = 8
ELEMENTS_PER_PROGRAM = 1024


@triton.jit
def _rotate_and_write(
    qkv, cos, sin, kv_indices, q, keys, values, heads,
    kv_heads, qkv_stride, HEADS: tl.constexpr, HALF: tl.constexpr,
) -> None:  # fmt: skip
    """Grid: tokens, groups of heads. Rotated queries go to `q`, rotated keys and the values to
    their places in a layer of the cache."""
    token = tl.program_id(0).to(tl.int64)
    head, at = tl.program_id(1) * HEADS + tl.arange(0, HEADS), tl.arange(0, HALF)
    kind = q.dtype.element_ty
    rotates = (head < heads + kv_heads)[:, None]
    source = qkv + token * qkv_stride + head[:, None] * (2 * HALF) + at[None, :]
    real = (head < heads + 2 * kv_heads)[:, None]
    first = tl.load(source, mask=real, other=0.0).to(tl.float32)
    second = tl.load(source + HALF, mask=real, other=0.0).to(tl.float32)
    c = tl.load(cos + token * HALF + at).to(tl.float32)[None, :]
    s = tl.load(sin + token * HALF + at).to(tl.float32)[None, :]
    # Each product is rounded on its own, as in the reference.
    turned = (first * c).to(kind).to(tl.float32) - (second * s).to(kind).to(tl.float32)
    other = (second * c).to(kind).to(tl.float32) + (first * s).to(kind).to(tl.float32)
    turned = tl.where(rotates, turned, first).to(kind)
    other = tl.where(rotates, other, second).to(kind)
    query = q + (token * heads + head[:, None]) * (2 * HALF) + at[None, :]
    is_query = (head < heads)[:, None]
    tl.store(query, turned, mask=is_query)
    tl.store(query + HALF, other, mask=is_query)
    place = tl.load(kv_indices + token) * kv_heads
    is_key = rotates & (head >= heads)[:, None]
    key = keys + (place + head[:, None] - heads) * (2 * HALF) + at[None, :]
    tl.store(key, turned, mask=is_key)
    tl.store(key + HALF, other, mask=is_key)
    is_value = real & (head >= heads + kv_heads)[:, None]
    value = values + (place + head[:, None] - heads - kv_heads) * (2 * HALF) + at[None, :]
    tl.store(value, turned, mask=is_value)
    tl.store(value + HALF, other, mask=is_value)


@triton.jit
def _silu_mul(gate_up, out, width, stride, SIZE: tl.constexpr) -> None:
    """Grid: rows, parts of the width."""
    row, at = tl.program_id(0).to(tl.int64), tl.program_id(1) * SIZE + tl.arange(0, SIZE)
    real = at < width
    kind = out.dtype.element_ty
    gate = tl.load(gate_up + row * stride + at, mask=real, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * stride + width + at, mask=real, other=0.0).to(tl.float32)
    active = (gate / (1.0 + tl.exp(-gate))).to(kind).to(tl.float32)
    tl.store(out + row * width + at, (active * up).to(kind), mask=real)


class TritonOps:
    """See `Ops`."""

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        return norms.add_rms_norm(x, weight=weight, eps=eps)[1]

    def add_rms_norm(
        self, x: Tensor, branch: Tensor, weight: Tensor, eps: float, scale: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return norms.add_rms_norm(x, branch, scale, weight, eps)

    def add(self, x: Tensor, branch: Tensor, scale: Tensor | None = None) -> Tensor:
        return norms.add_rms_norm(x, branch, scale)[0]

    def square_sums(self, x: Tensor, y: Tensor) -> Tensor:
        return norms.square_sums(x, y)

    def divide_by_root(
        self, x: Tensor, squares: Tensor, width: int, weight: Tensor, eps: float
    ) -> Tensor:
        return norms.divide_by_root(x, squares, width, weight, eps)

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
        keys, values = cache.layer(layer)
        query_heads, kv_heads, _ = heads
        tokens, _, head_dim = qkv.shape
        q = qkv.new_empty(tokens, query_heads, head_dim)
        _rotate_and_write[tokens, triton.cdiv(sum(heads), HEADS_PER_PROGRAM)](
            qkv,
            rotary.cos,
            rotary.sin,
            batch.kv_indices,
            q,
            keys,
            values,
            query_heads,
            kv_heads,
            qkv.stride(0),
            HEADS=HEADS_PER_PROGRAM,
            HALF=head_dim // 2,
            num_warps=2,
        )
        return batch.attend(layer, q, cache)

    def see(self, q: Tensor, k: Tensor, v: Tensor, head_dim: int) -> Tensor:
        return TORCH.see(q, k, v, head_dim)

    def gelu(self, x: Tensor) -> Tensor:
        return TORCH.gelu(x)

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        rows, width = len(gate_up), gate_up.shape[-1] // 2
        out = gate_up.new_empty(rows, width)
        _silu_mul[rows, triton.cdiv(width, ELEMENTS_PER_PROGRAM)](
            gate_up, out, width, gate_up.stride(0), SIZE=ELEMENTS_PER_PROGRAM, num_warps=4
        )
        return out
