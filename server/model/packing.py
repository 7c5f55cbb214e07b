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
from server.kernels.backends import Unfit, load_for_cpu
from server.model.layers import Pack

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


def plain_packing(device: torch.device, hidden: torch.dtype, dtype: torch.dtype) -> Pack | None:
    """How this machine multiplies plain matrices best, if not as they are.

    Args:
        hidden: type of what goes in and comes out.
        dtype: type of the products.
    """
    try:
        pack: Pack = load_for_cpu("server.model.panels", device, hidden).packing_for(dtype)
    except Unfit:
        return OneDnnMatrix if _packs(device, hidden) else None
    return pack


def plain_bytes(device: torch.device, hidden: torch.dtype, dtype: torch.dtype, stored: str) -> int:
    """Of a value in a plain matrix that is `stored` in a checkpoint."""
    try:
        load_for_cpu("server.model.panels", device, hidden)
    except Unfit:
        return hidden.itemsize
    return torch.bfloat16.itemsize if stored == "bfloat16" else dtype.itemsize


def _packs(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether oneDNN packs such weights on this machine."""
    if device.type != "cpu" or not torch._C._has_mkldnn:
        return False
    supported = {
        torch.float32: True,
        torch.bfloat16: torch.ops.mkldnn._is_mkldnn_bf16_supported(),
        torch.float16: torch.ops.mkldnn._is_mkldnn_fp16_supported(),
    }
    return bool(supported[dtype])
