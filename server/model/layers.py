"""The building blocks that both transformers are made of.

Parameters are plain tensors, allocated empty by the `NewTensor` that the caller chose and filled by
`weights`; nothing here tracks gradients. Statistics of the norms are float32 whatever the type of
the input.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from server.distributed.groups import Group
from server.kernels.ops import TORCH, Ops


class NewTensor(Protocol):
    """Allocates a parameter; dtype and device are settled."""

    def __call__(self, *shape: int) -> Tensor: ...


def new_on(device: torch.device, dtype: torch.dtype) -> NewTensor:
    def new(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    return new


META = new_on(torch.device("meta"), torch.float32)
"""Shapes without memory."""


class Linear:
    """x @ weight.T + bias, with weight [outputs, inputs]."""

    def __init__(self, inputs: int, outputs: int, new: NewTensor, *, bias: bool = False) -> None:
        self.weight = new(outputs, inputs)
        self.bias = new(outputs) if bias else None

    def __call__(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias)


class RowLinear:
    """A `Linear` whose inputs are split over the ranks of a group: each multiplies its part, the
    products are added up, and then the bias."""

    def __init__(
        self, inputs: int, outputs: int, new: NewTensor, group: Group, *, bias: bool = False
    ) -> None:
        """`inputs` are those of this rank."""
        self.weight = new(outputs, inputs)
        self.bias = new(outputs) if bias else None
        self._group = group

    def __call__(self, x: Tensor) -> Tensor:
        if self._group.size == 1:
            return functional.linear(x, self.weight, self.bias)
        product = self._group.sum(functional.linear(x, self.weight))
        return product if self.bias is None else product + self.bias


class RMSNorm:
    """x / sqrt(mean(x²) + eps) over the last dimension, rounded to the type of x, times weight."""

    def __init__(self, size: int, eps: float, new: NewTensor) -> None:
        self.weight = new(size)
        self.eps = eps

    def __call__(self, x: Tensor, ops: Ops = TORCH) -> Tensor:
        return ops.rms_norm(x, self.weight, self.eps)

    def add(
        self, x: Tensor, branch: Tensor, ops: Ops = TORCH, scale: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """x + scale * branch, and the norm of that."""
        return ops.add_rms_norm(x, branch, self.weight, self.eps, scale)


class LayerNorm:
    """torch's own, with its default eps."""

    def __init__(self, size: int, new: NewTensor) -> None:
        self.weight = new(size)
        self.bias = new(size)

    def __call__(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, self.weight.shape, self.weight, self.bias, eps=1e-5)
