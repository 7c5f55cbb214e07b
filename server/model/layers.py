"""The building blocks that both transformers are made of.

Parameters are plain tensors, allocated empty by the `NewTensor` that the caller chose and filled by
`weights`; nothing here tracks gradients. A filled matrix can be packed into the form that its
device multiplies best, or that takes less memory. Statistics of the norms are float32 whatever the
type of the input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional

from server.distributed.groups import SOLO, Group
from server.kernels.ops import TORCH, Activation, Ops


class NewTensor(Protocol):
    """Allocates a parameter; dtype and device are settled."""

    def __call__(self, *shape: int) -> Tensor: ...


def new_on(device: torch.device, dtype: torch.dtype) -> NewTensor:
    def new(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    return new


META = new_on(torch.device("meta"), torch.float32)
"""Shapes without memory."""


class Matrix(Protocol):
    """A packed weight."""

    @property
    def size_bytes(self) -> int: ...

    def __call__(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """x @ weight.T + bias, in the type of x."""


@runtime_checkable
class Fusible(Protocol):
    """A packed weight that may take over what follows its product."""

    def fuse(self, activation: Activation) -> bool:
        """Has the activation made of all products from now on, if it can."""


Pack = Callable[[Tensor, Group], Matrix]
"""Packs a weight [outputs, inputs]; the group's ranks hold other inputs of the same outputs."""


class Linear:
    """x @ weight.T + bias, with weight [outputs, inputs]. A packed weight keeps its shape, on the
    meta device."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        new: NewTensor,
        *,
        bias: bool = False,
        group: Group = SOLO,
    ) -> None:
        self.weight = new(outputs, inputs)
        self.bias = new(outputs) if bias else None
        self._group = group
        self._packed: Matrix | None = None

    def __call__(self, x: Tensor) -> Tensor:
        return self._multiply(x, self.bias)

    def _multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        if self._packed is None:
            return functional.linear(x, self.weight, bias)
        return self._packed(x, bias)

    def allocate(self, new: NewTensor) -> None:
        """Memory for a weight that had only a shape, to be filled and packed."""
        self.weight = new(*self.weight.shape)

    def pack(self, pack: Pack) -> None:
        self._packed = pack(self.weight, self._group)
        self.weight = self.weight.to("meta")

    @property
    def size_bytes(self) -> int:
        """What the weight takes."""
        if self._packed is not None:
            return self._packed.size_bytes
        return 0 if self.weight.is_meta else self.weight.nbytes


class ActivatedLinear(Linear):
    """A `Linear` and the activation that follows, in one where the packed weight can."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        new: NewTensor,
        activation: Activation,
        *,
        bias: bool = False,
    ) -> None:
        super().__init__(inputs, outputs, new, bias=bias)
        self._activation = activation
        self._fused = False

    def pack(self, pack: Pack) -> None:
        super().pack(pack)
        packed: object = self._packed
        self._fused = isinstance(packed, Fusible) and packed.fuse(self._activation)

    def activated(self, x: Tensor, ops: Ops) -> Tensor:
        product = self(x)
        if self._fused:
            return product
        return ops.gelu(product) if self._activation == "gelu" else ops.silu_mul(product)


class RowLinear(Linear):
    """A `Linear` whose inputs are split over the ranks of a group: each multiplies its part, the
    products are added up, and then the bias."""

    def __init__(
        self, inputs: int, outputs: int, new: NewTensor, group: Group, *, bias: bool = False
    ) -> None:
        """`inputs` are those of this rank."""
        super().__init__(inputs, outputs, new, bias=bias, group=group)

    def __call__(self, x: Tensor) -> Tensor:
        if self._group.size == 1:
            return self._multiply(x, self.bias)
        product = self._group.sum(self._multiply(x, None))
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
