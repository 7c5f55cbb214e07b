"""Plain matrices whose values fit bfloat16, as the kernels for CPUs multiply them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from server.distributed.groups import Group
from server.kernels.cpu.products import in_panels, multiply
from server.model.packing import OneDnnMatrix


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
        if bias is not None and (missing := -self._outputs % self._panels.shape[2]):
            bias = functional.pad(bias, (0, missing))
        result = multiply(x.flatten(0, -2), self._panels, bias)
        if result.shape[1] > self._outputs:
            result = result[:, : self._outputs].contiguous()
        return result.view(*x.shape[:-1], self._outputs)


def pack(weight: Tensor, group: Group) -> PanelMatrix | OneDnnMatrix:
    return PanelMatrix(weight) if fits(weight) else OneDnnMatrix(weight, group)


def fits(weight: Tensor) -> bool:
    """Whether no value changes when it is rounded to bfloat16."""
    return bool(torch.equal(weight.bfloat16().float(), weight))
