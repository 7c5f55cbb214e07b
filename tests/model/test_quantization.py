from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from server.distributed.groups import SOLO, Groups
from server.errors import StartupError
from server.model.checkpoint import fillings
from server.model.dummy import dummy_model
from server.model.internvl import InternVLChat
from server.model.layers import Linear, Matrix, Pack
from server.model.panels import Int8PanelMatrix
from server.model.quantization import (
    Fp8CpuMatrix,
    Fp8Matrix,
    Int4Matrix,
    Int8CpuMatrix,
    Int8Matrix,
    packing,
)
from server.model.shards import ShardPlan
from server.model.spec import ModelSpec
from server.model.weights import load_model
from server.settings import Quantization
from tests.distributed.threads import run_ranks
from tests.golden import CHECKPOINT

CPU = torch.device("cpu")
SPEC = ModelSpec.load(CHECKPOINT)
FORMS = [(Int8CpuMatrix, 0.011), (Int8Matrix, 0.009), (Int4Matrix, 0.09)]
FORMS += [(Fp8CpuMatrix, 0.04), (Fp8Matrix, 0.04)]
KINDS: list[Quantization] = ["int8", "fp8", "int4"]


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return float((actual.double() - expected).norm() / expected.norm())


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("form", "error"), FORMS)
def test_the_product_is_nearly_that_of_the_weights(
    form: Pack, error: float, dtype: torch.dtype
) -> None:
    weight, bias, x = torch.randn(96, 256), torch.randn(96), torch.randn(2, 9, 256)
    product = form(weight.to(dtype), SOLO)(x.to(dtype), bias.to(dtype))
    assert product.dtype == dtype
    assert product.shape == (2, 9, 96)
    exact = x.double() @ weight.double().T + bias.double()
    assert 0.001 < relative_error(product, exact) < error


@pytest.mark.parametrize(("form", "error"), FORMS)
@pytest.mark.parametrize("shape", [(100, 50), (1, 1), (17, 33), (48, 16)])
def test_any_shape(form: Pack, error: float, shape: tuple[int, int]) -> None:
    weight, x = torch.randn(shape), torch.randn(3, shape[1])
    product = form(weight, SOLO)(x, None)
    assert relative_error(product, x.double() @ weight.double().T) < 1.5 * error


@pytest.mark.parametrize("inputs", [128, 688])
@pytest.mark.parametrize("form", [Int8CpuMatrix, Int8Matrix, Fp8CpuMatrix, Int4Matrix])
def test_a_row_has_the_same_bits_in_any_batch(form: Pack, inputs: int) -> None:
    x = torch.randn(70, inputs)
    matrix = form(torch.randn(80, inputs), SOLO)
    together = matrix(x, None)
    for count in (1, 2, 3, 5, 8, 16, 17, 33, 69):
        assert torch.equal(matrix(x[:count], None), together[:count])


def test_a_cpu_multiplies_8_bits_with_float32() -> None:
    pack = packing("int8", CPU)
    assert pack is not None
    weight, x = torch.randn(100, 50), torch.randn(2, 70, 50)
    matrix = pack(weight, SOLO)
    assert isinstance(matrix, Int8PanelMatrix)
    bias = torch.randn(100)
    product = matrix(x, bias)
    exact = x.double() @ weight.double().T + bias.double()
    assert 0.001 < relative_error(product, exact) < 0.009
    assert relative_error(product, x.double() @ dequantised_by(matrix, 50).T + bias) < 1e-6
    for count in (1, 2, 6, 7, 69):
        assert torch.equal(matrix(x[:, :count], bias), product[:, :count])
    assert isinstance(pack(weight.bfloat16(), SOLO), Int8CpuMatrix)


def dequantised_by(matrix: Matrix, inputs: int) -> Tensor:
    """The weight that it stands for."""
    return matrix(torch.eye(inputs), None).T.double()


def test_sums_of_fp8_have_no_order() -> None:
    weight, x, order = torch.randn(512, 688), torch.randn(512, 688), torch.randperm(688)
    product = Fp8CpuMatrix(weight, SOLO)(x, None)
    assert torch.equal(Fp8CpuMatrix(weight[:, order], SOLO)(x[:, order], None), product)


@pytest.mark.parametrize("form", [form for form, _ in FORMS])
def test_zeros_are_zeros(form: Pack) -> None:
    assert not form(torch.zeros(32, 64), SOLO)(torch.randn(3, 64), None).any()
    assert not form(torch.randn(32, 64), SOLO)(torch.zeros(3, 64), None).any()


def test_two_digits_bear_outliers() -> None:
    """One activation a thousand times the others, as large language models have them."""
    weight, x = torch.randn(64, 256), torch.randn(20, 256)
    x[:, 7] *= 1000
    scales = weight.abs().amax(1, keepdim=True) / 127
    stored = (weight / scales).round() * scales
    others = torch.ones(256)
    others[7] = 0
    product = Int8Matrix(weight, SOLO)(x, None).double()
    rest = product - x[:, 7:8].double() @ stored[:, 7:8].double().T
    assert relative_error(rest, (x * others).double() @ stored.double().T) < 0.03


@pytest.mark.parametrize(
    ("form", "bits"), [(Int8CpuMatrix, 8), (Int8Matrix, 8), (Fp8CpuMatrix, 8), (Int4Matrix, 5)]
)
def test_sizes(form: Pack, bits: int) -> None:
    """Of 4-bit values every 32 share two numbers of 16 bits."""
    size = form(torch.randn(512, 4096), SOLO).size_bytes * 8 / (512 * 4096)
    assert bits <= size < bits * 1.01


def dequantised(linear: Linear) -> Tensor:
    """The weight that a packed linear stands for."""
    return linear._multiply(torch.eye(linear.weight.shape[1]), None)


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_ranks_hold_parts_of_what_one_would_hold(quantization: Quantization) -> None:
    """Their scales are those of whole channels, their groups those of the whole."""

    def outs(size: int) -> list[list[Tensor]]:
        plan = ShardPlan.make(SPEC, size)

        def work(rank: int, groups: Groups) -> list[Tensor]:
            model = load_model(
                CHECKPOINT,
                SPEC,
                torch.float32,
                CPU,
                shard=plan.ranks[rank],
                groups=groups,
                pack=packing(quantization, CPU),
            )
            return [dequantised(layer.mlp.down) for layer in model.language.layers]

        return run_ranks(size, size, work)

    (whole,) = outs(1)
    parts = outs(2)
    for layer, expected in enumerate(whole):
        assert torch.equal(torch.cat([rank[layer] for rank in parts]), expected)


@pytest.mark.parametrize("quantization", KINDS)
def test_the_layers_of_the_language_model_alone_are_quantised(quantization: Quantization) -> None:
    model = load_model(CHECKPOINT, SPEC, torch.float32, CPU, pack=packing(quantization, CPU))
    layers = [
        linear
        for layer in model.language.layers
        for linear in (
            layer.attention.qkv,
            layer.attention.out,
            layer.mlp.gate_up,
            layer.mlp.down,
        )
    ]
    held = [f.parameter for f in fillings(model) if isinstance(f.parameter, Linear)]
    packed = [linear for linear in held if linear.weight.is_meta]
    assert packed == layers
    assert len(held) - len(packed) == 4 * SPEC.vision.layers_used + 2 + 1
    plain = sum(linear.weight.numel() * 4 for linear in packed)
    assert sum(linear.size_bytes for linear in packed) < plain / 3


def test_few_matrices_are_held_in_16_bits_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.model.reading.AHEAD_BYTES", 0)
    held, most = 0, 0
    allocate, pack = Linear.allocate, Linear.pack

    def allocating(self: Linear, *args: object) -> None:
        nonlocal held, most
        held += 1
        most = max(most, held)
        allocate(self, *args)  # type: ignore[arg-type]

    def packing_one(self: Linear, *args: object) -> None:
        nonlocal held
        held -= 1
        pack(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Linear, "allocate", allocating)
    monkeypatch.setattr(Linear, "pack", packing_one)
    load_model(CHECKPOINT, SPEC, torch.float32, CPU, pack=packing("int8", CPU))
    assert held == 0
    assert most == 2


def test_a_dummy_can_be_quantised() -> None:
    model: InternVLChat = dummy_model(SPEC, torch.bfloat16, CPU, pack=packing("int4", CPU))
    assert model.language.layers[0].mlp.down.weight.is_meta
    assert_close(
        float(dequantised(model.language.layers[0].mlp.down).std()), 0.02, atol=3e-3, rtol=0
    )


def test_an_old_gpu_has_no_fp8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda _: (8, 0))
    with pytest.raises(StartupError, match="needs a GPU of the Ada or Hopper generation"):
        packing("fp8", torch.device("cuda"))
    assert packing("int8", torch.device("cuda")) is Int8Matrix
    assert packing("fp8", CPU) is Fp8CpuMatrix
