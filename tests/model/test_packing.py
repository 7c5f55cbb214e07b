from __future__ import annotations

import psutil
import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

from server.distributed.groups import SOLO
from server.kernels.cpu.ops import CpuOps
from server.kernels.cpu.tiles import multiplies_bfloat16
from server.kernels.cpu.vectors import WIDTH
from server.kernels.ops import Activation
from server.model.layers import ActivatedLinear, Linear, new_on
from server.model.packing import OneDnnMatrix, plain_bytes, plain_packing, rounded_rows
from server.model.panels import PanelMatrix, packing_for
from server.model.quantization import packing
from server.settings import Quantization

CPU = torch.device("cpu")
F32 = torch.float32


@pytest.fixture
def linear() -> Linear:
    torch.manual_seed(0)
    linear = Linear(96, 80, new_on(CPU, torch.float32), bias=True)
    linear.weight.normal_()
    assert linear.bias is not None
    linear.bias.normal_()
    return linear


def test_packed_is_the_same_product(linear: Linear) -> None:
    x = torch.randn(2, 3, 96)
    expected = functional.linear(x, linear.weight, linear.bias)
    linear.pack(OneDnnMatrix)
    assert_close(linear(x), expected)


def test_a_row_has_the_same_bits_in_any_batch(linear: Linear) -> None:
    x = torch.randn(70, 96)
    linear.pack(OneDnnMatrix)
    together = linear(x)
    for count in (1, 2, 3, 4, 7, 16, 33, 69):
        assert torch.equal(linear(x[:count]), together[:count])


def test_a_packed_weight_keeps_its_shape_and_frees_its_memory(linear: Linear) -> None:
    size_bytes = linear.size_bytes
    linear.pack(OneDnnMatrix)
    assert linear.weight.shape == (80, 96)
    assert linear.weight.is_meta
    assert linear.size_bytes == size_bytes == 80 * 96 * 4


def test_without_bias() -> None:
    weight, x = torch.randn(16, 32), torch.randn(5, 32)
    assert_close(OneDnnMatrix(weight, SOLO)(x, None), x @ weight.T)


def test_only_a_cpu_packs() -> None:
    assert plain_packing(torch.device("cuda"), F32, F32) is None
    assert plain_packing(CPU, F32, F32) is not None


def test_what_bfloat16_holds_takes_half_and_stays_exact(linear: Linear) -> None:
    linear.weight.copy_(linear.weight.bfloat16())
    x = torch.randn(2, 3, 96)
    expected = functional.linear(x, linear.weight, linear.bias)
    linear.pack(packing_for(F32))
    assert_close(linear(x), expected)
    assert linear.size_bytes == 80 * 96 * plain_bytes(CPU, F32, F32, "bfloat16")


@pytest.mark.skipif(not multiplies_bfloat16(), reason="this CPU does not multiply bfloat16")
def test_products_of_bfloat16_round_what_they_multiply_and_nothing_else(linear: Linear) -> None:
    x = torch.randn(2, 3, 96)
    expected = functional.linear(x.bfloat16().float(), linear.weight.bfloat16().float())
    matrix = packing_for(torch.bfloat16)(linear.weight, SOLO)
    assert isinstance(matrix, PanelMatrix)
    assert_close(matrix(x, None), expected)
    assert matrix.size_bytes == 80 * 96 * plain_bytes(CPU, F32, torch.bfloat16, "float32")


@pytest.mark.parametrize("quantization", ["none", "int8"])
@pytest.mark.parametrize("outputs", [96, 80, 74])
@pytest.mark.parametrize("activation", ["gelu", "silu_mul"])
def test_an_activation_is_made_with_the_product_where_panels_are_whole(
    activation: Activation, outputs: int, quantization: Quantization
) -> None:
    linear = ActivatedLinear(48, outputs, new_on(CPU, F32), activation)
    linear.weight.copy_(torch.randn(outputs, 48).bfloat16())
    x, ops = torch.randn(2, 5, 48)[0], CpuOps(F32)
    pack = packing(quantization, CPU) or packing_for(F32)
    product = pack(linear.weight, SOLO)(x, None)
    linear.pack(pack)
    expected = ops.gelu(product) if activation == "gelu" else ops.silu_mul(product)
    assert_close(linear.activated(x, ops), expected)
    panels = outputs / WIDTH / (2 if activation == "silu_mul" else 1)
    assert linear._fused == (panels == int(panels))


def test_outputs_that_fill_no_panel() -> None:
    weight, bias, x = torch.randn(37, 48).bfloat16().float(), torch.randn(37), torch.randn(5, 48)
    product = PanelMatrix(weight, F32)(x, bias)
    assert_close(product, functional.linear(x, weight, bias))
    assert product.is_contiguous()


def test_what_bfloat16_does_not_hold_stays_float32(linear: Linear) -> None:
    assert isinstance(packing_for(F32)(linear.weight, SOLO), OneDnnMatrix)
    assert plain_bytes(CPU, F32, F32, "float32") == 4


def test_rows_are_rounded_to_few_numbers() -> None:
    numbers = {rounded_rows(rows) for rows in range(1, 8193)}
    assert len(numbers) == 16 + 8 * 9
    for rows in range(1, 8193):
        assert rows <= rounded_rows(rows) <= rows * 9 / 8
    assert [rounded_rows(rows) for rows in (0, 1, 16, 17, 33, 8192)] == [0, 1, 16, 18, 36, 8192]


def test_steps_of_many_sizes_take_little_memory() -> None:
    matrix = OneDnnMatrix(torch.randn(512, 256), SOLO)
    before = psutil.Process().memory_full_info().uss
    for rows in range(1, 401):
        matrix(torch.randn(rows, 256), None)
    # One kernel for each of them would take 220 MB.
    assert psutil.Process().memory_full_info().uss - before < 80e6
