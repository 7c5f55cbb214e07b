"""Matrices as the kernels for CPUs multiply them: in bfloat16 where values fit, or in 8 bits."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from server.distributed.groups import Group
from server.kernels.cpu.products import in_panels, multiply
from server.model.packing import OneDnnMatrix
from server.model.quantization import int8_values


class PanelMatrix:
    """Half the memory of float32, and the same values."""

    def __init__(self, weight: Tensor) -> None:
        """`weight` is float32 and fits: see `fits`."""
        self._outputs = len(weight)
        self._panels = in_panels(weight.bfloat16())

    @property
    def size_bytes(self) -> int:
        return int(self._panels.nbytes)

    def __call__(self, x: Tensor, bias: Tensor | None) -> Tensor:
        return _product(x, self._panels, self._outputs, bias)


class Int8PanelMatrix:
    """Activations stay float32, so that only the weights are rounded."""

    def __init__(self, weight: Tensor, group: Group) -> None:
        self._outputs, inputs = weight.shape
        values, self._scales = int8_values(weight, group, torch.float32)
        self._panels = in_panels(values[:, :inputs])

    @property
    def size_bytes(self) -> int:
        return int(self._panels.nbytes) + int(self._scales.nbytes)

    def __call__(self, x: Tensor, bias: Tensor | None) -> Tensor:
        return _product(x, self._panels, self._outputs, bias, self._scales)


def _product(
    x: Tensor, panels: Tensor, outputs: int, bias: Tensor | None, scales: Tensor | None = None
) -> Tensor:
    """[..., inputs] to [..., outputs]."""
    if bias is not None and (missing := -outputs % panels.shape[2]):
        bias = functional.pad(bias, (0, missing))
    result = multiply(x.flatten(0, -2), panels, bias, scales)
    if result.shape[1] > outputs:
        result = result[:, :outputs].contiguous()
    return result.view(*x.shape[:-1], outputs)


def pack(weight: Tensor, group: Group) -> PanelMatrix | OneDnnMatrix:
    return PanelMatrix(weight) if fits(weight) else OneDnnMatrix(weight, group)


def fits(weight: Tensor) -> bool:
    """Whether no value changes when it is rounded to bfloat16."""
    return bool(torch.equal(weight.bfloat16().float(), weight))
