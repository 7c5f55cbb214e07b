"""Matrices as the kernels for CPUs multiply them: in bfloat16 where values fit, or in 8 bits."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from server.distributed.groups import Group
from server.kernels.cpu.products import in_panels, multiply, rounded
from server.model.layers import Matrix, Pack
from server.model.packing import OneDnnMatrix
from server.model.quantization import int8_values


class PanelMatrix:
    """Weights in bfloat16, and products with rows of `dtype`: float32, to which the weights are
    widened, or bfloat16, to which rows of float32 are rounded."""

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        self._outputs = len(weight)
        self._panels = in_panels(weight.bfloat16())
        self._dtype = dtype

    @property
    def size_bytes(self) -> int:
        return int(self._panels.nbytes)

    def __call__(self, x: Tensor, bias: Tensor | None) -> Tensor:
        return _product(_rows(x, self._dtype), self._panels, self._outputs, bias)


class Int8PanelMatrix:
    """The same with weights in 8 bits, and a scale for each output."""

    def __init__(self, weight: Tensor, group: Group, dtype: torch.dtype) -> None:
        self._outputs, inputs = weight.shape
        values, self._scales = int8_values(weight, group, torch.float32)
        self._panels = in_panels(values[:, :inputs])
        self._dtype = dtype

    @property
    def size_bytes(self) -> int:
        return int(self._panels.nbytes) + int(self._scales.nbytes)

    def __call__(self, x: Tensor, bias: Tensor | None) -> Tensor:
        rows = _rows(x, self._dtype)
        return _product(rows, self._panels, self._outputs, bias, self._scales)


def _rows(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x if x.dtype == dtype else rounded(x)


def _product(
    x: Tensor, panels: Tensor, outputs: int, bias: Tensor | None, scales: Tensor | None = None
) -> Tensor:
    """[..., inputs] to float32 [..., outputs]."""
    padded = panels.shape[0] * panels.shape[2]
    if bias is not None and padded > outputs:
        bias = functional.pad(bias, (0, padded - outputs))
    result = multiply(x.flatten(0, -2), panels, bias, scales)
    if padded > outputs:
        result = result[:, :outputs].contiguous()
    return result.view(*x.shape[:-1], outputs)


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
