"""What stands between the products of a training step, each in one pass over memory.

`torch.compile` writes it in C++, forward and backward, which takes two minutes and saves an eighth
of every step on a CPU.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable

import torch
from torch import Tensor

from server.demo.network import TrainingOps
from server.kernels.attention import AttentionBatch, KVCache
from server.kernels.ops import TORCH, Rotary

_SHAPES = 64
"""For how many shapes and types a function may be compiled."""


def can_compile() -> bool:
    """Whether there is the C++ compiler that `torch.compile` would call."""
    return shutil.which(torch._inductor.config.cpp.cxx[-1]) is not None


class FusedOps(TrainingOps):
    """What goes into a product is rounded at once to the type of products."""

    def __init__(self, dtype: torch.dtype) -> None:
        """`dtype` is the type of products."""
        torch._dynamo.config.recompile_limit = _SHAPES

        def normed(x: Tensor, weight: Tensor, eps: float) -> Tensor:
            return TORCH.rms_norm(x, weight, eps).to(dtype)

        def added(
            x: Tensor, branch: Tensor, weight: Tensor, eps: float, scale: Tensor | None
        ) -> tuple[Tensor, Tensor]:
            x = TORCH.add(x, branch, scale)
            return x, normed(x, weight, eps)

        def divided(x: Tensor, squares: Tensor, width: int, weight: Tensor, eps: float) -> Tensor:
            return TORCH.divide_by_root(x, squares, width, weight, eps).to(dtype)

        def rotated(qkv: Tensor, heads: list[int], cos: Tensor, sin: Tensor) -> list[Tensor]:
            parts = torch.split(qkv, heads, dim=1)
            return [*(_rotated(part, cos, sin).to(dtype) for part in parts[:2]), parts[2]]

        self._normed: Callable[..., Tensor] = torch.compile(normed)
        self._added: Callable[..., tuple[Tensor, Tensor]] = torch.compile(added)
        self._divided: Callable[..., Tensor] = torch.compile(divided)
        self._rotated: Callable[..., list[Tensor]] = torch.compile(rotated)
        self._sums: Callable[..., Tensor] = torch.compile(TORCH.square_sums)
        self._add: Callable[..., Tensor] = torch.compile(TORCH.add)
        self._gelu: Callable[..., Tensor] = torch.compile(TORCH.gelu)
        self._silu_mul: Callable[..., Tensor] = torch.compile(TORCH.silu_mul)

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        return self._normed(x, weight, eps)

    def add_rms_norm(
        self, x: Tensor, branch: Tensor, weight: Tensor, eps: float, scale: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return self._added(x, branch, weight, eps, scale)

    def add(self, x: Tensor, branch: Tensor, scale: Tensor | None = None) -> Tensor:
        return self._add(x, branch, scale)

    def square_sums(self, x: Tensor, y: Tensor) -> Tensor:
        return self._sums(x, y)

    def divide_by_root(
        self, x: Tensor, squares: Tensor, width: int, weight: Tensor, eps: float
    ) -> Tensor:
        return self._divided(x, squares, width, weight, eps)

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
        q, k, v = self._rotated(qkv, heads, rotary.cos, rotary.sin)
        return batch.write_and_attend(layer, q, k, v, cache)

    def gelu(self, x: Tensor) -> Tensor:
        return self._gelu(x)

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        return self._silu_mul(gate_up)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
