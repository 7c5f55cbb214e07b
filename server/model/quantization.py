"""The language model's matrices in 8 or 4 bits; everything else keeps its type.

Scales belong to output channels (int8, fp8) or to groups of `INT4_GROUP` inputs of one (int4), so
that ranks quantise their parts to the values that the whole would have. Products are bfloat16, the
only type for which all kernels exist. On a CPU a row has the same bits however many there are.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from server.distributed.groups import Group
from server.errors import StartupError
from server.kernels.backends import Unfit, load_for_cpu
from server.model.layers import Matrix, Pack
from server.settings import Quantization

INT8_MAX = 127
FP8 = torch.float8_e4m3fn
FP8_MAX = 448
DIGIT = 128
"""Base of the two digits that `Int8Matrix` makes of an activation."""

INT4_GROUP = 32
"""Inputs that share scale and offset. No rank's part begins inside a group: heads and the units in
which columns are dealt are multiples of it."""

OUTPUTS_UNIT = 16
INPUTS_UNIT = 32
"""Matrices are padded to multiples of these: some kernels want that, others read past the end."""

BLOCK_ROWS = 1024
"""Rows that are quantised at once, which bounds what it takes beside the result."""

FP8_BLOCK_ROWS = 256
"""Rows of an fp8 matrix that are cast to float64 at once."""

_SMALLEST = 1e-12


def packing(
    quantization: Quantization, device: torch.device, dtype: torch.dtype = torch.float32
) -> Pack | None:
    """How matrices are packed, if they are quantised.

    Args:
        dtype: type of the products, where a CPU has kernels of ours.

    Raises:
        StartupError: the device cannot multiply them.
    """
    if quantization == "none":
        return None
    if quantization == "int4":
        return Int4Matrix
    if quantization == "fp8":
        if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 9):
            raise StartupError(
                "--quantization fp8 needs a GPU of the Ada or Hopper generation or newer; "
                "int8 runs on this one"
            )
        return Fp8Matrix if device.type == "cuda" else Fp8CpuMatrix
    return Int8Matrix if device.type == "cuda" else partial(_int8_on_a_cpu, dtype)


def _int8_on_a_cpu(dtype: torch.dtype, weight: Tensor, group: Group) -> Matrix:
    try:
        panels = load_for_cpu("server.model.panels", weight.device, weight.dtype)
    except Unfit:
        return Int8CpuMatrix(weight, group)
    matrix: Matrix = panels.Int8PanelMatrix(weight, group, dtype)
    return matrix


class Int8CpuMatrix:
    """8-bit weights times bfloat16."""

    def __init__(self, weight: Tensor, group: Group) -> None:
        self._outputs = len(weight)
        self._values, scales = int8_values(weight, group, torch.bfloat16)
        self._scales = scales.bfloat16()

    @property
    def size_bytes(self) -> int:
        return self._values.nbytes + self._scales.nbytes

    def __call__(self, x: Tensor, bias: Tensor | None) -> Tensor:
        rows = _rows(x, self._values.shape[1]).bfloat16()
        product = torch.ops.aten._weight_int8pack_mm(rows, self._values, self._scales)
        return _result(product, self._outputs, x, bias)


class Int8Matrix:
    """8-bit weights times activations as fixed-point numbers of two 8-bit digits, all in integers.

    Two digits are finer than bfloat16 near the largest value of a row, so outliers do no harm.
    Both are multiplied by one call that reads the weights once, and integer sums have no order: a
    row's result is the same in any batch.
    """

    LEAST_ROWS = 17
    """cuBLAS refuses fewer."""

    def __init__(self, weight: Tensor, group: Group) -> None:
        self._outputs = len(weight)
        self._values, self._scales = int8_values(weight, group, torch.float32)

    @property
    def size_bytes(self) -> int:
        return self._values.nbytes + self._scales.nbytes

    def __call__(self, x: Tensor, bias: Tensor | None) -> Tensor:
        rows = _rows(x, self._values.shape[1]).float()
        count = len(rows)
        scales = _row_scales(rows, INT8_MAX * DIGIT)
        fixed = (rows / scales).round()
        high = (fixed / DIGIT).round()
        digits = torch.cat([high, fixed - high * DIGIT]).to(torch.int8)
        padding = max(0, self.LEAST_ROWS - len(digits))
        products = torch._int_mm(functional.pad(digits, (0, 0, 0, padding)), self._values.t())
        high, low = products[:count].float(), products[count : 2 * count].float()
        return _result((high * DIGIT + low) * (scales * self._scales), self._outputs, x, bias)


class Fp8Matrix:
    """8-bit floating point on both sides; each row of activations has its own scale."""

    def __init__(self, weight: Tensor, group: Group) -> None:
        self._outputs = len(weight)
        weight = _padded(weight)
        scales = _scales(weight, group, FP8_MAX)
        self._values = _by_rows(lambda rows, s: (rows / s).to(FP8), weight, scales)
        self._scales = scales.t().contiguous()

    @property
    def size_bytes(self) -> int:
        return self._values.nbytes + self._scales.nbytes

    def __call__(self, x: Tensor, bias: Tensor | None) -> Tensor:
        rows = _rows(x, self._values.shape[1]).float()
        scales = _row_scales(rows, FP8_MAX)
        product = self._multiply((rows / scales).to(FP8), scales)
        return _result(product, self._outputs, x, bias)

    def _multiply(self, rows: Tensor, scales: Tensor) -> Tensor:
        return torch._scaled_mm(
            rows,
            self._values.t(),
            scale_a=scales,
            scale_b=self._scales,
            out_dtype=torch.bfloat16,
        )


class Fp8CpuMatrix(Fp8Matrix):
    """The same on a CPU, where torch's call adds up in an order that depends on how many rows there
    are. In float64 no sum of products of two such numbers is rounded, whatever its order."""

    def _multiply(self, rows: Tensor, scales: Tensor) -> Tensor:
        exact = rows.double()
        blocks = torch.split(self._values, FP8_BLOCK_ROWS)
        sums = torch.cat([exact @ block.double().t() for block in blocks], dim=1)
        return (sums * (scales * self._scales)).bfloat16()


class Int4Matrix:
    """4-bit weights with a scale and an offset for each group of inputs, times bfloat16."""

    def __init__(self, weight: Tensor, group: Group) -> None:
        self._outputs = len(weight)
        blocks = [_int4(rows) for rows in torch.split(_padded(weight), BLOCK_ROWS)]
        self._values = torch.cat([values for values, _ in blocks])
        self._scales = torch.cat([scales for _, scales in blocks], dim=1)
        self._inputs = len(self._scales) * INT4_GROUP

    @property
    def size_bytes(self) -> int:
        return self._values.nbytes + self._scales.nbytes

    def __call__(self, x: Tensor, bias: Tensor | None) -> Tensor:
        rows = _rows(x, self._inputs).bfloat16()
        aten = torch.ops.aten
        multiply = aten._weight_int4pack_mm if x.is_cuda else aten._weight_int4pack_mm_for_cpu
        product = multiply(rows, self._values, INT4_GROUP, self._scales)
        return _result(product, self._outputs, x, bias)


def int8_values(weight: Tensor, group: Group, scale_dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Values [outputs, inputs] and scales [outputs], rounded to their type before they are used."""
    weight = _padded(weight)
    scales = _scales(weight, group, INT8_MAX).to(scale_dtype).float()

    def quantise(rows: Tensor, scales: Tensor) -> Tensor:
        values = (rows / scales).round_().clamp_(-INT8_MAX, INT8_MAX)
        return values.to(torch.int8)

    return _by_rows(quantise, weight, scales), scales.flatten()


def _int4(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Values as the kernels want them, and scales with offsets [groups, outputs, 2]: a value q
    stands for (q - 8) * scale + offset."""
    groups = torch.unflatten(rows.float(), 1, (-1, INT4_GROUP))
    low, high = groups.aminmax(dim=-1, keepdim=True)
    scales = ((high - low) / 15).clamp(min=_SMALLEST).bfloat16()
    offsets = (low + 8 * scales.float()).bfloat16()
    values = groups.sub(offsets.float()).div_(scales.float()).round_().add_(8).clamp_(0, 15)
    values = values.flatten(1).to(torch.int32)
    return _int4_packed(values), torch.cat([scales, offsets], -1).transpose(0, 1).contiguous()


def _int4_packed(values: Tensor) -> Tensor:
    aten = torch.ops.aten
    if not values.is_cuda:
        packed: Tensor = aten._convert_weight_to_int4pack_for_cpu(values, 1)
        return packed
    pairs = (values[:, ::2] << 4 | values[:, 1::2]).to(torch.uint8)
    # The kernel takes so many tiles of 16 inputs at a time; more are faster.
    tiles = next(tiles for tiles in (8, 4, 2) if values.shape[1] % (16 * tiles) == 0)
    packed = aten._convert_weight_to_int4pack(pairs, tiles)
    return packed


def _scales(weight: Tensor, group: Group, largest: int) -> Tensor:
    """[outputs, 1]: what makes the largest value of each output, on any rank, `largest`."""
    peaks = torch.linalg.vector_norm(weight, torch.inf, dim=1, keepdim=True).float()
    peaks = torch.stack(group.gather(peaks)).amax(0)
    return (peaks / largest).clamp(min=_SMALLEST)


def _row_scales(rows: Tensor, largest: int) -> Tensor:
    return (rows.abs().amax(1, keepdim=True) / largest).clamp(min=_SMALLEST)


def _by_rows(
    quantise: Callable[[Tensor, Tensor], Tensor], weight: Tensor, scales: Tensor
) -> Tensor:
    blocks = zip(torch.split(weight, BLOCK_ROWS), torch.split(scales, BLOCK_ROWS), strict=True)
    return torch.cat([quantise(rows, part) for rows, part in blocks])


def _padded(weight: Tensor) -> Tensor:
    outputs, inputs = weight.shape
    missing = (0, -inputs % INPUTS_UNIT, 0, -outputs % OUTPUTS_UNIT)
    return functional.pad(weight, missing) if any(missing) else weight


def _rows(x: Tensor, inputs: int) -> Tensor:
    """[..., inputs] as padded rows."""
    rows = x.flatten(0, -2)
    missing = inputs - rows.shape[1]
    return functional.pad(rows, (0, missing)) if missing else rows


def _result(product: Tensor, outputs: int, x: Tensor, bias: Tensor | None) -> Tensor:
    """The padded product as the layer's result, in the shape and type of `x`."""
    result = product[:, :outputs].to(x.dtype).view(*x.shape[:-1], outputs)
    return result if bias is None else result + bias
