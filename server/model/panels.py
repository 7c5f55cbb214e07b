"""Matrices as the kernels for CPUs multiply them: in bfloat16 where values fit, or in 8 bits."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from server.distributed.groups import Group
from server.kernels.cpu.products import in_panels, in_turn, multiply, rounded
from server.kernels.cpu.vectors import WIDTH
from server.kernels.ops import Activation
from server.model.layers import Matrix, Pack
from server.model.packing import OneDnnMatrix
from server.model.quantization import int8_values


class _Panels:
    """A matrix in panels, and products with rows of `dtype`: float32, to which the weights are
    widened, or bfloat16, to which rows of float32 are rounded."""

    def __init__(
        self, values: Tensor, outputs: int, dtype: torch.dtype, scales: Tensor | None = None
    ) -> None:
        """`scales` are those of each output, if values stand for others."""
        self._outputs = outputs
        self._panels = in_panels(values)
        self._scales = scales
        self._dtype = dtype
        self._activation: Activation | None = None

    @property
    def size_bytes(self) -> int:
        return int(self._panels.nbytes) + (0 if self._scales is None else self._scales.nbytes)

    def fuse(self, activation: Activation) -> bool:
        gated = activation == "silu_mul"
        if self._outputs % (2 * WIDTH if gated else WIDTH):
            return False
        self._activation = activation
        if gated:
            self._outputs //= 2
            self._panels = in_turn(self._panels)
            self._scales = None if self._scales is None else in_turn(self._scales)
        return True

    def __call__(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """[..., inputs] to float32 [..., outputs], or what the activation makes of that."""
        rows = (x if x.dtype == self._dtype else rounded(x)).flatten(0, -2)
        padded = self._panels.shape[0] * WIDTH
        if bias is not None and padded > len(bias):
            bias = functional.pad(bias, (0, padded - len(bias)))
        if bias is not None and self._activation == "silu_mul":
            bias = in_turn(bias)
        result = multiply(rows, self._panels, bias, self._scales, self._activation)
        if result.shape[1] > self._outputs:
            result = result[:, : self._outputs].contiguous()
        return result.view(*x.shape[:-1], self._outputs)


class PanelMatrix(_Panels):
    """Weights in bfloat16."""

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        super().__init__(weight.bfloat16(), len(weight), dtype)


class Int8PanelMatrix(_Panels):
    """Weights in 8 bits, and a scale for each output."""

    def __init__(self, weight: Tensor, group: Group, dtype: torch.dtype) -> None:
        outputs, inputs = weight.shape
        values, scales = int8_values(weight, group, torch.float32)
        super().__init__(values[:, :inputs], outputs, dtype, scales)


def packing_for(dtype: torch.dtype) -> Pack:
    """How plain matrices are packed for products in `dtype`."""
    return partial(_pack, dtype)


def _pack(dtype: torch.dtype, weight: Tensor, group: Group) -> Matrix:
    if dtype == torch.bfloat16 or fits(weight):
        return PanelMatrix(weight, dtype)
    return OneDnnMatrix(weight, group)


def fits(weight: Tensor) -> bool:
    """Whether no value changes when it is rounded to bfloat16."""
    return bool(torch.equal(weight.bfloat16().float(), weight))
