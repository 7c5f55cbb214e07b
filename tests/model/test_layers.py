from __future__ import annotations

import torch
from torch.testing import assert_close

from server.model.layers import META, LayerNorm, Linear, NewTensor, RMSNorm, new_on


def seeded(dtype: torch.dtype = torch.float32) -> NewTensor:
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(shape, generator=generator).to(dtype)


def test_rms_norm_divides_by_the_root_of_the_mean_square() -> None:
    norm = RMSNorm(2, 0.0, seeded())
    assert_close(
        norm(torch.tensor([[3.0, 4.0]])), torch.tensor([3.0, 4.0]) / 12.5**0.5 * norm.weight[None]
    )


def test_rms_norm_adds_eps_to_the_mean_square() -> None:
    norm = RMSNorm(1, 9.0, seeded())
    assert_close(norm(torch.tensor([4.0])), 4.0 / 5.0 * norm.weight)


def test_rms_norm_rounds_before_it_weighs() -> None:
    norm = RMSNorm(64, 1e-6, seeded(torch.bfloat16))
    x = torch.randn(8, 64, generator=torch.Generator().manual_seed(1)).bfloat16()
    exact = x.double() * torch.rsqrt(x.double().square().mean(-1, keepdim=True) + 1e-6)
    assert norm(x).dtype == torch.bfloat16
    assert torch.equal(norm(x), exact.bfloat16() * norm.weight)
    assert not torch.equal(norm(x), (exact * norm.weight.double()).bfloat16())


def test_layer_norm_is_torch_s() -> None:
    norm, module = LayerNorm(6, seeded()), torch.nn.LayerNorm(6)
    module.load_state_dict({"weight": norm.weight, "bias": norm.bias})
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(1)) * 1e-2
    assert torch.equal(norm(x), module(x))


def test_linear_has_a_bias_on_demand() -> None:
    with_bias, without = Linear(3, 2, seeded(), bias=True), Linear(3, 2, seeded())
    x = torch.tensor([1.0, 2.0, 3.0])
    assert with_bias.bias is not None
    assert without.bias is None
    assert_close(with_bias(x), without(x) + with_bias.bias)


def test_parameters_are_where_the_caller_wants_them() -> None:
    linear = Linear(3, 2, new_on(torch.device("cpu"), torch.float16), bias=True)
    assert linear.weight.dtype == torch.float16
    assert linear.weight.shape == (2, 3)
    assert not linear.weight.requires_grad
    assert META(2, 3).is_meta
