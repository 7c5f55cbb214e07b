"""Weights in oneDNN's own layout: the form in which a CPU multiplies plain matrices.

Its kernels give a row the same bits however many rows there are, which those behind
`functional.linear` do not, and they are up to three times as fast at a few rows. It makes and keeps
one for each number of rows it meets, a quarter to half a megabyte each; so rows are rounded up.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

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
        """x [..., in] -> [..., out]; steps of the language model are [rows, in]."""
        rows = len(x)
        if x.ndim == 2 and (extra := rounded_rows(rows) - rows):
            x = functional.pad(x, (0, 0, 0, extra))
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, bias, "none", [], "")
        return product[:rows]


def rounded_rows(rows: int) -> int:
    """The next number with at most four significant bits: at most an eighth more."""
    step = 1 << max(0, (rows - 1).bit_length() - 4)
    return -(-rows // step) * step


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
