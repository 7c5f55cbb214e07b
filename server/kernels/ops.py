"""What stands between the matrix products, behind one interface: norms, rotation, activations, and
the attention of the vision tower.

`TorchOps` is the reference: plain torch, one rounding at each operation, the arithmetic that the
golden numbers were made with. An implementation that fuses operations computes the same with the
same roundings, save the order in which a row is summed up, and a row's result depends on that row
alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from server.kernels.attention import AttentionBatch, KVCache

Activation = Literal["gelu", "silu_mul"]
"""What follows a product, by its name in `Ops`."""


@dataclass(eq=False)
class Rotary:
    """Rotates element i of each head with element i + head_dim / 2 by an angle that grows with the
    position. Angles are float32: in bfloat16 far positions would blur into each other."""

    positions: Tensor
    head_dim: int
    theta: float
    dtype: torch.dtype

    @cached_property
    def cos(self) -> Tensor:
        """[T, 1, head_dim / 2], as is `sin`."""
        return self._angles.cos().to(self.dtype)[:, None]

    @cached_property
    def sin(self) -> Tensor:
        return self._angles.sin().to(self.dtype)[:, None]

    @cached_property
    def _angles(self) -> Tensor:
        exponents = torch.arange(0, self.head_dim, 2, device=self.positions.device).float()
        return self.positions[:, None].float() * (1.0 / self.theta ** (exponents / self.head_dim))

    def __call__(self, x: Tensor) -> Tensor:
        """[T, heads, head_dim] to the same."""
        first, second = x.chunk(2, dim=-1)
        return torch.cat(
            [first * self.cos - second * self.sin, second * self.cos + first * self.sin], dim=-1
        )


class Ops(Protocol):
    """Everything but matrix products and attention over pages. Widths are last dimensions."""

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """x / sqrt(mean(x²) + eps), rounded to the type of x, times weight."""

    def add_rms_norm(
        self, x: Tensor, branch: Tensor, weight: Tensor, eps: float, scale: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """x + scale * branch, and the norm of that; `scale` [width] is 1 where there is none."""

    def add(self, x: Tensor, branch: Tensor, scale: Tensor | None = None) -> Tensor:
        """x + scale * branch."""

    def square_sums(self, x: Tensor, y: Tensor) -> Tensor:
        """Sums of squares of two tensors [..., width], float32 [2, ..., 1]."""

    def divide_by_root(
        self, x: Tensor, squares: Tensor, width: int, weight: Tensor, eps: float
    ) -> Tensor:
        """`rms_norm` from sums of squares over `width` elements, of which x may be a part."""

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
        """Rotates queries and keys, writes keys and values to the cache and attends.

        Args:
            qkv: [T, sum(heads), head_dim], the heads of queries, keys and values in this order.

        Returns:
            [T, heads, head_dim].
        """

    def see(self, q: Tensor, k: Tensor, v: Tensor, head_dim: int) -> Tensor:
        """Attention where every token sees every token, of [N, tokens, heads * head_dim] each."""

    def gelu(self, x: Tensor) -> Tensor:
        """x times the normal distribution below it, exactly."""

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        """silu(gate) * up of [T, 2 * width], the gate first: [T, width]."""


class TorchOps:
    """The reference, and what computes where nothing better runs."""

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        exact = x.float()
        mean_square = exact.square().mean(-1, keepdim=True)
        return (exact * torch.rsqrt(mean_square + eps)).to(x.dtype) * weight

    def add_rms_norm(
        self, x: Tensor, branch: Tensor, weight: Tensor, eps: float, scale: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        x = self.add(x, branch, scale)
        return x, self.rms_norm(x, weight, eps)

    def add(self, x: Tensor, branch: Tensor, scale: Tensor | None = None) -> Tensor:
        return x + branch if scale is None else x + scale * branch

    def square_sums(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.stack([x, y]).float().square().sum(-1, keepdim=True)

    def divide_by_root(
        self, x: Tensor, squares: Tensor, width: int, weight: Tensor, eps: float
    ) -> Tensor:
        return (x.float() * torch.rsqrt(squares / width + eps)).to(x.dtype) * weight

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
        q, k, v = torch.split(qkv, heads, dim=1)
        return batch.write_and_attend(layer, rotary(q), rotary(k), v, cache)

    def see(self, q: Tensor, k: Tensor, v: Tensor, head_dim: int) -> Tensor:
        q, k, v = (torch.unflatten(x, -1, (-1, head_dim)).transpose(1, 2) for x in (q, k, v))
        return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    def gelu(self, x: Tensor) -> Tensor:
        return functional.gelu(x)

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        return functional.silu(gate) * up


TORCH = TorchOps()
