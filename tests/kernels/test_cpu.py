"""The kernels for CPUs against plain torch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import carray
from torch import Tensor
from torch.testing import assert_close

from server.kernels.attention import KVCache
from server.kernels.cpu import attention, products
from server.kernels.cpu.attention import BLOCK_SIZE, CpuBatch
from server.kernels.cpu.openmp import disband
from server.kernels.cpu.ops import CpuOps
from server.kernels.cpu.team import Kernel
from server.kernels.cpu.tiles import multiplies_bfloat16
from server.kernels.cpu.vectors import VECTOR_BYTES, exp, load, store, take
from server.kernels.ops import TORCH, Rotary
from tests.kernels.paged_step import Inputs, Row, Step, naive

OPS = CpuOps(torch.float32)
EPS = 1e-5
needs_bfloat16 = pytest.mark.skipif(
    not multiplies_bfloat16(), reason="this CPU does not multiply bfloat16"
)
ROW_DTYPES = [torch.float32, *[torch.bfloat16] * multiplies_bfloat16()]
"""Of the rows that products are made of here."""


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def step_of(inputs: Inputs, rows: list[Row]) -> Step:
    return Step(inputs, rows, BLOCK_SIZE, CpuBatch, attention.write)


# Teams of threads.


def test_a_team_that_is_disbanded_comes_again(threads: int) -> None:
    numbers = torch.ones(10**6)
    numbers.sin()  # enough for all threads
    together = psutil.Process().num_threads()
    disband()
    # Others of this process may end meanwhile.
    assert psutil.Process().num_threads() <= together - (threads - 1)
    assert torch.equal(numbers.sin(), numbers.sin())


# What is compiled is kept.

KEPT = """
import torch
from server.kernels.cpu import attention, ops, products, sight
from server.kernels.cpu.tiles import Form
kernels = [ops.NORMALISE, *(module._kernel(4) for module in (attention, sight))]
kernels += [products._kernel(Form(4, size)) for size in (1, 2)]
print([kernel.was_kept for kernel in kernels])
"""


def test_another_process_finds_what_one_has_compiled(tmp_path: Path) -> None:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", KEPT]
    found = [subprocess.check_output(command, env=environment, text=True) for _ in range(2)]
    assert found == [f"{[False] * 5}\n", f"{[True] * 5}\n"]


# Vectors.


def _exponentiate(pointer: Any) -> None:
    a = carray(pointer, 1)[0]
    while True:
        item = take(pointer, 0)
        if item >= a.items:
            break
        store(a.result + item * VECTOR_BYTES, exp(load(a.x + item * VECTOR_BYTES)))


EXPONENTIATE = Kernel(_exponentiate, "items x result")


def test_exponentials() -> None:
    x = torch.cat([torch.linspace(-87, 88, 4000), draw(96) / 100])
    result = torch.full_like(x, torch.nan)
    EXPONENTIATE.run(items=len(x) // 16, x=x, result=result)
    assert_close(result.double(), x.double().exp(), rtol=3e-7, atol=0)


def test_exponentials_beyond_the_ends() -> None:
    x = torch.tensor([-torch.inf, -1e30, -88, 89, 1e30, torch.inf, torch.nan, *[0.0] * 9])
    result = torch.empty_like(x)
    EXPONENTIATE.run(items=1, x=x, result=result)
    assert bool((result[:3] < 2e-38).all())
    assert bool((result[3:6] > 1e38).all())
    assert bool(result[6].isnan())
    assert result[7:].tolist() == [1.0] * 9


# Products.


@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"),
    [(1, 64, 96), (4, 1, 16), (6, 700, 80), (7, 513, 40), (97, 2100, 9), (200, 96, 33)],
)
@pytest.mark.parametrize("dtype", ROW_DTYPES)
def test_products(rows: int, inputs: int, outputs: int, dtype: torch.dtype, threads: int) -> None:
    x = draw(rows, inputs).to(dtype)
    bias, scales = (draw(-(-outputs // 16) * 16, seed=seed).clamp(-1, 1) for seed in (2, 3))
    tolerance = {"atol": 5e-6 * inputs**0.5, "rtol": 0.0}
    for weight in (
        draw(outputs, inputs, seed=1).bfloat16(),
        (40 * draw(outputs, inputs, seed=1)).clamp(-128, 127).to(torch.int8),
    ):
        panels = products.in_panels(weight)
        expected = x.double() @ weight.double().T
        factor = 1 / 40 if weight.dtype == torch.int8 else 1.0
        alone = factor * products.multiply(x, panels, None)[:, :outputs]
        assert_close(alone, (factor * expected).float(), **tolerance)
        both = products.multiply(x, panels, bias, factor * scales)[:, :outputs]
        expected = factor * scales[:outputs] * expected + bias[:outputs]
        assert_close(both, expected.float(), **tolerance)


@pytest.mark.parametrize("dtype", ROW_DTYPES)
@pytest.mark.parametrize("weights", [torch.bfloat16, torch.int8])
def test_a_row_of_a_product_has_the_same_bits_in_any_batch(
    dtype: torch.dtype, weights: torch.dtype, threads: int
) -> None:
    x = draw(230, 1100).to(dtype)
    panels = products.in_panels((20 * draw(136, 1100, seed=1)).to(weights))
    together = products.multiply(x, panels, None)
    for count in (1, 2, 3, 5, 6, 7, 8, 9, 12, 13, 96, 97, 193):
        assert torch.equal(products.multiply(x[:count], panels, None), together[:count])


@pytest.mark.parametrize("rows", [3, 7, 200])
@pytest.mark.parametrize("dtype", ROW_DTYPES)
def test_products_and_their_activations_in_one(rows: int, dtype: torch.dtype, threads: int) -> None:
    x, bias = draw(rows, 1100).to(dtype), draw(544, seed=2)
    panels = products.in_panels(draw(544, 1100, seed=1).bfloat16())
    ops, sums = CpuOps(dtype), products.multiply(x, panels, bias)
    assert torch.equal(products.multiply(x, panels, bias, None, "gelu"), ops.gelu(sums))
    turns = products.in_turn(panels), products.in_turn(bias)
    assert torch.equal(products.multiply(x, *turns, None, "silu_mul"), ops.silu_mul(sums))


def test_rows_that_are_no_block_of_memory() -> None:
    x, weight = draw(9, 2 * 64)[:, ::2], draw(32, 64, seed=1).bfloat16()
    assert_close(products.multiply(x, products.in_panels(weight), None), x @ weight.float().T)


# Attention.

ROWS = st.builds(
    lambda context, part: Row(context, max(1, round(context * part))),
    st.integers(1, 70),
    st.one_of(st.just(0.0), st.floats(0.0, 1.0)),
)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    rows=st.lists(ROWS, min_size=1, max_size=5),
    kv_heads=st.integers(1, 3),
    group=st.sampled_from([1, 4, 7]),
    head_dim=st.sampled_from([32, 64, 128]),
)
def test_attention_equals_one_query_at_a_time(
    rows: list[Row], kv_heads: int, group: int, head_dim: int
) -> None:
    inputs = Inputs.random(len(rows), 70, kv_heads=kv_heads, group=group, head_dim=head_dim)
    step = step_of(inputs, rows)
    assert_close(step.attend(step.build()), naive(inputs, rows), atol=1e-5, rtol=1e-5)


@needs_bfloat16
def test_a_cache_in_bfloat16() -> None:
    rows = [Row(70), Row(33, 33), Row(16, 5), Row(31, 14), Row(2)]
    inputs = Inputs.random(len(rows), 70, kv_heads=2, group=7, head_dim=64)
    rounded = Inputs(*(x.bfloat16() for x in (inputs.q, inputs.k, inputs.v)))
    step = step_of(rounded, rows)
    assert step.cache.keys.dtype == torch.bfloat16
    attended = step.attend(step.build())
    assert attended.dtype == torch.float32
    # Weights are rounded too.
    assert_close(attended, naive(rounded, rows).float(), atol=1e-2, rtol=0)


def test_long_contexts(threads: int) -> None:
    rows = [Row(1300), Row(700, 130), Row(9)]
    inputs = Inputs.random(len(rows), 1300, kv_heads=2, group=4, head_dim=32)
    step = step_of(inputs, rows)
    assert_close(step.attend(step.build()), naive(inputs, rows), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("padding", [-1, 10**6])
def test_padding_of_block_tables_is_never_looked_at(padding: int) -> None:
    rows = [Row(40, 3), Row(5), Row(4, 4), Row(1)]
    inputs = Inputs.random(len(rows), 40, kv_heads=2, group=4, head_dim=32)
    step = step_of(inputs, rows)
    tables = step.block_tables.to(torch.int32)
    for index, row in enumerate(rows):
        tables[index, -(-row.context // step.block_size) :] = padding
    assert_close(step.attend(step.build(tables)), naive(inputs, rows), atol=1e-5, rtol=1e-5)


def test_one_sequence_gone_wrong_stays_alone() -> None:
    rows = [Row(20), Row(21), Row(20, 5), Row(9, 9)]
    inputs = Inputs.random(len(rows), 30, kv_heads=2, group=4, head_dim=32)
    for x in (inputs.q, inputs.k, inputs.v):
        x[[0, 2]] = torch.nan
    step = step_of(inputs, rows)
    attended = step.attend(step.build())
    bad = torch.tensor([True, False, *[True] * 5, *[False] * 9])
    assert bool(attended[bad].isnan().all())
    assert_close(attended[~bad], naive(inputs, rows)[~bad], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("group", [1, 4, 7])
def test_company_does_not_change_a_bit(group: int, threads: int) -> None:
    contexts = [700, 1, 40, 200]
    inputs = Inputs.random(len(contexts), 700, kv_heads=2, group=group, head_dim=32)
    together = step_of(inputs, [Row(context) for context in contexts])
    attended = together.attend(together.build())
    for index, context in enumerate(contexts):
        own = slice(index, index + 1)
        alone = step_of(Inputs(inputs.q[own], inputs.k[own], inputs.v[own]), [Row(context)])
        assert torch.equal(alone.attend(alone.build())[0], attended[index])


@pytest.mark.parametrize("group", [1, 7])
@pytest.mark.parametrize("size", [1, 2, 5, 16, 100])
def test_chunks_do_not_change_a_bit(group: int, size: int) -> None:
    length = 560
    inputs = Inputs.random(1, length, kv_heads=2, group=group, head_dim=32)
    whole = step_of(inputs, [Row(length, length)])
    attended = whole.attend(whole.build())
    for end in range(size, length + 1, size * 9):
        chunk = step_of(inputs, [Row(end, size)])
        assert torch.equal(chunk.attend(chunk.build()), attended[end - size : end])


# Attention of the vision tower.


@pytest.mark.parametrize("dtype", ROW_DTYPES)
@pytest.mark.parametrize(("tokens", "heads", "head_dim"), [(5, 5, 32), (65, 2, 64), (197, 3, 16)])
def test_sight(tokens: int, heads: int, head_dim: int, dtype: torch.dtype, threads: int) -> None:
    q, k, v = draw(2, tokens, 3 * heads * head_dim).chunk(3, dim=-1)
    seen = CpuOps(dtype).see(q, k, v, head_dim)
    rounded = [x.to(dtype).double() for x in (q, k, v)]
    expected = TORCH.see(rounded[0], rounded[1], rounded[2], head_dim).float()
    # Weights are rounded too.
    assert_close(seen, expected, atol=1e-5 if dtype == torch.float32 else 1e-2, rtol=0)
    for index in range(2):
        alone = CpuOps(dtype).see(q[index, None], k[index, None], v[index, None], head_dim)
        assert torch.equal(alone[0], seen[index])


# Norms, rotation, activations.


@pytest.mark.parametrize("shape", [(1, 128), (5, 100), (2, 3, 48)])
def test_norms(shape: tuple[int, ...], threads: int) -> None:
    x, branch, weight = draw(*shape), draw(*shape, seed=1), draw(shape[-1], seed=2)
    assert_close(OPS.rms_norm(x, weight, EPS), TORCH.rms_norm(x, weight, EPS))
    for scale in (None, draw(shape[-1], seed=3)):
        added, normed = OPS.add_rms_norm(x, branch, weight, EPS, scale)
        expected = TORCH.add_rms_norm(x, branch, weight, EPS, scale)
        assert_close(added, expected[0], atol=1e-6, rtol=0)
        assert_close(normed, expected[1])


@pytest.mark.parametrize("width", [48, 50])
def test_norms_over_more_than_a_rank_has(width: int, threads: int) -> None:
    q, k, _ = draw(2, 5, 3 * width).chunk(3, dim=-1)
    weight, squares = draw(width, seed=1), OPS.square_sums(q, k)
    assert_close(squares, TORCH.square_sums(q, k))
    normed = OPS.divide_by_root(k, squares[1], 4 * width, weight, EPS)
    assert_close(normed, TORCH.divide_by_root(k, squares[1], 4 * width, weight, EPS))


@pytest.mark.parametrize("width", [16, 50, 30_000])
def test_gelu(width: int) -> None:
    x = torch.cat([draw(3, width), draw(1, width) * 8, torch.full((1, width), -30.0)])
    assert_close(OPS.gelu(x), TORCH.gelu(x), atol=2e-6, rtol=1e-6)


@pytest.mark.parametrize("width", [64, 50])
def test_activations(width: int) -> None:
    gate_up = draw(9, 2 * width) * 4
    assert_close(OPS.silu_mul(gate_up), TORCH.silu_mul(gate_up))
    far = -100 * gate_up.abs()
    assert_close(OPS.silu_mul(far), TORCH.silu_mul(far), atol=1e-30, rtol=1e-6)


@pytest.mark.parametrize("width", [96, 50])
def test_what_products_take_is_rounded_where_it_is_made(width: int) -> None:
    rounding = CpuOps(torch.float32, torch.bfloat16)
    x, branch, weight = draw(5, width), draw(5, width, seed=1), draw(width, seed=2)
    makers: list[Callable[[CpuOps], Tensor]] = [
        lambda ops: ops.rms_norm(x, weight, EPS),
        lambda ops: ops.add_rms_norm(x, branch, weight, EPS)[1],
        lambda ops: ops.gelu(x),
        lambda ops: ops.silu_mul(x),
    ]
    for make in makers:
        assert torch.equal(make(rounding), make(OPS).bfloat16())
    # What a product gives back in bfloat16 is widened.
    assert torch.equal(rounding.add(x, branch.bfloat16()), x + branch.bfloat16().float())


@pytest.mark.parametrize(("heads", "kv_heads"), [(7, 1), (8, 2), (3, 3)])
@pytest.mark.parametrize("head_dim", [32, 128])
@pytest.mark.parametrize("dtype", ROW_DTYPES)
def test_rotation_and_the_cache(
    heads: int, kv_heads: int, head_dim: int, dtype: torch.dtype
) -> None:
    positions = torch.tensor([3, 0, 11, 40])
    qkv = draw(len(positions), heads + 2 * kv_heads, head_dim)
    rotary = Rotary(positions, head_dim, 1e4, torch.float32)
    tables = torch.arange(12).view(4, 3).flip(0)
    results = []
    for ops in (OPS, TORCH):
        cache = KVCache.allocate(
            num_layers=2,
            num_blocks=12,
            block_size=BLOCK_SIZE,
            num_kv_heads=kv_heads,
            head_dim=head_dim,
            dtype=dtype,
            device=torch.device("cpu"),
        )
        batch = CpuBatch.build(
            cache,
            positions=positions,
            kv_indices=tables.gather(1, positions[:, None] // 16)[:, 0] * 16 + positions % 16,
            query_lens=[1] * len(positions),
            context_lens=(positions + 1).tolist(),
            block_tables=tables,
        )
        attended = ops.rotate_and_attend(
            1, qkv.clone(), rotary, heads=[heads, kv_heads, kv_heads], cache=cache, batch=batch
        )
        results.append((attended, cache.keys, cache.values))
    for own, reference in zip(*results, strict=True):
        assert_close(own, reference)


@pytest.mark.parametrize("dtype", ROW_DTYPES)
@pytest.mark.parametrize("tokens", [1, 4, 5, 21])
def test_what_is_not_written_yet_disturbs_nobody(dtype: torch.dtype, tokens: int) -> None:
    positions = torch.arange(tokens)
    qkv = draw(tokens, 3, 32)
    empty = torch.full((1, 2, BLOCK_SIZE, 1, 32), torch.nan, dtype=dtype)
    cache = KVCache(empty, empty.clone())
    batch = CpuBatch.build(
        cache,
        positions=positions,
        kv_indices=positions,
        query_lens=[tokens],
        context_lens=[tokens],
        block_tables=torch.arange(2)[None],
    )
    rotary = Rotary(positions, 32, 1e4, torch.float32)
    attended = OPS.rotate_and_attend(0, qkv, rotary, heads=[1, 1, 1], cache=cache, batch=batch)
    assert bool(attended.isfinite().all())
