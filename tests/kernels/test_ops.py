"""The reference in float32 is what its docstrings say; the fused kernels are the reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from server.kernels.attention import KVCache
from server.kernels.ops import TORCH, Ops, Rotary
from server.kernels.sdpa import SdpaBatch
from server.kernels.triton.ops import TritonOps

FUSED = TritonOps()
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
EPS = 1e-5


def draw(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def check_equal(fused: Tensor, reference: Tensor) -> None:
    """Where nothing is summed up. The interpreter cuts bfloat16 off where a GPU rounds it."""
    if fused.dtype == torch.bfloat16 and fused.device.type == "cpu":
        check(fused, reference)
    else:
        assert torch.equal(fused, reference)


def check(fused: Tensor, reference: Tensor) -> None:
    """Equal but for a last rounding that an order of summation decides."""
    assert fused.dtype == reference.dtype
    assert fused.shape == reference.shape
    step = torch.finfo(fused.dtype).eps
    assert_close(fused, reference, atol=4 * step, rtol=3 * step)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 128), (5, 100), (2, 3, 48)])
def test_norms(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x, branch = draw(*shape, dtype=dtype), draw(*shape, dtype=dtype, seed=1)
    weight, scale = draw(shape[-1], dtype=dtype, seed=2), draw(shape[-1], dtype=dtype, seed=3)
    check(FUSED.rms_norm(x, weight, EPS), TORCH.rms_norm(x, weight, EPS))
    for layer_scale in (None, scale):
        results = FUSED.add_rms_norm(x, branch, weight, EPS, layer_scale)
        expected = TORCH.add_rms_norm(x, branch, weight, EPS, layer_scale)
        check_equal(results[0], expected[0])
        check(results[1], expected[1])
    check_equal(FUSED.add(x, branch, scale), TORCH.add(x, branch, scale))


@pytest.mark.parametrize("dtype", DTYPES)
def test_norms_of_the_parts_of_a_joined_product(dtype: torch.dtype) -> None:
    """Queries and keys lie side by side, and a rank has a part of the width."""
    q, k, _ = draw(2, 5, 3 * 40, dtype=dtype).chunk(3, dim=-1)
    weight = draw(40, dtype=dtype, seed=1)
    squares = FUSED.square_sums(q, k)
    expected = TORCH.square_sums(q, k)
    assert_close(squares, expected)
    for x, sums in zip((q, k), expected, strict=True):
        check(
            FUSED.divide_by_root(x, sums, 100, weight, EPS),
            TORCH.divide_by_root(x, sums, 100, weight, EPS),
        )


@pytest.mark.parametrize("dtype", DTYPES)
def test_activations(dtype: torch.dtype) -> None:
    gate_up = draw(3, 2 * 1100, dtype=dtype) * 4
    check(FUSED.silu_mul(gate_up), TORCH.silu_mul(gate_up))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "kv_heads"), [(7, 1), (14, 2), (3, 3)])
def test_rotation_and_the_cache(dtype: torch.dtype, heads: int, kv_heads: int) -> None:
    tokens, head_dim = 4, 16
    qkv = draw(tokens, heads + 2 * kv_heads, head_dim, dtype=dtype)
    positions = torch.tensor([3, 0, 11, 40])
    rotary = Rotary(positions, head_dim, 1e4, dtype)
    results = []
    for ops in (FUSED, TORCH):
        cache = KVCache.allocate(
            num_layers=2,
            num_blocks=12,
            block_size=16,
            num_kv_heads=kv_heads,
            head_dim=head_dim,
            dtype=dtype,
            device=torch.device("cpu"),
        )
        tables = torch.arange(12).view(4, 3).flip(0)
        batch = SdpaBatch.build(
            cache,
            positions=positions,
            kv_indices=tables.gather(1, positions[:, None] // 16)[:, 0] * 16 + positions % 16,
            query_lens=[1] * tokens,
            context_lens=(positions + 1).tolist(),
            block_tables=tables,
        )
        attended = ops.rotate_and_attend(
            1, qkv, rotary, heads=[heads, kv_heads, kv_heads], cache=cache, batch=batch
        )
        results.append((attended, cache.keys, cache.values))
    for fused, reference in zip(*results, strict=True):
        check_equal(fused, reference)


@pytest.mark.parametrize("ops", [FUSED, TORCH], ids=["fused", "torch"])
def test_company_does_not_change_a_bit(ops: Ops) -> None:
    x, branch, weight = draw(9, 64), draw(9, 64, seed=1), draw(64, seed=2)
    together = ops.add_rms_norm(x, branch, weight, EPS)[1]
    alone = [
        ops.add_rms_norm(x[row : row + 1], branch[row : row + 1], weight, EPS)[1]
        for row in range(9)
    ]
    assert torch.equal(together, torch.cat(alone))
    active = ops.silu_mul(x)
    assert torch.equal(active, torch.cat([ops.silu_mul(x[row : row + 1]) for row in range(9)]))


def test_a_row_gone_wrong_stays_alone() -> None:
    x, weight = draw(3, 32), draw(32, seed=1)
    x[1] = torch.nan
    normed = FUSED.rms_norm(x, weight, EPS)
    assert normed.isnan().all(dim=-1).tolist() == [False, True, False]
