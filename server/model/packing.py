"""Weights in oneDNN's own layout: the form in which a CPU multiplies plain matrices.

Its kernels give a row the same bits however many rows there are, which those behind
`functional.linear` do not, and they are up to three times as fast at a few rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from server.distributed.groups import Group

ROWS = 16
"""What the layout is tuned for; any number is multiplied."""


class OneDnnMatrix:
    def __init__(self, weight: Tensor, group: Group) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS)

    @property
    def size_bytes(self) -> int:
        return int(self._weight.nbytes)

    def __call__(self, x: Tensor, bias: Tensor | None) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, bias, "none", [], "")
        return product


def packs_here(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether oneDNN packs such weights on this machine."""
    if device.type != "cpu" or not torch._C._has_mkldnn:
        return False
    supported = {
        torch.float32: True,
        torch.bfloat16: torch.ops.mkldnn._is_mkldnn_bf16_supported(),
        torch.float16: torch.ops.mkldnn._is_mkldnn_fp16_supported(),
    }
    return bool(supported[dtype])
