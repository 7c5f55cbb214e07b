"""Our own attention kernels, interpreted, against one query and one head at a time.

The interpreter multiplies no bfloat16; that is for a GPU to show (`benchmarks/gpu`).
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from server.kernels.sdpa import SdpaBatch
from server.kernels.triton.attention import TritonBatch
from server.kernels.triton.prefill import query_tiles
from tests.kernels.paged_step import Inputs, Row, Step, naive


def exact_inputs(length: int) -> Inputs:
    """Numbers whose products and sums are exact: the interpreter's matrix product adds up in an
    order that depends on where in a tile a row stands, which that of a GPU does not."""
    generator = torch.Generator().manual_seed(0)

    def draw(heads: int, step: float) -> Tensor:
        values = torch.randint(-2, 3, (1, length, heads, 16), generator=generator)
        return (values * step).half()

    return Inputs(draw(2, 0.25), draw(1, 0.25), draw(1, 1.0))


ROWS = st.builds(
    lambda context, part: Row(context, max(1, round(context * part))),
    st.integers(1, 40),
    st.one_of(st.just(0.0), st.floats(0.0, 1.0)),
)


@settings(derandomize=True, deadline=None, max_examples=8)
@given(
    rows=st.lists(ROWS, min_size=1, max_size=4),
    kv_heads=st.integers(1, 2),
    group=st.sampled_from([1, 4, 7]),
    block_size=st.sampled_from([16, 32]),
)
def test_equals_one_query_at_a_time(
    rows: list[Row], kv_heads: int, group: int, block_size: int
) -> None:
    inputs = Inputs.random(len(rows), 40, kv_heads=kv_heads, group=group, head_dim=16)
    step = Step(inputs, rows, block_size, TritonBatch)
    assert_close(step.attend(step.build()), naive(inputs, rows), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_shape_of_the_large_model(dtype: torch.dtype) -> None:
    """Heads of 128, seven queries a key; contexts around a tile, a split and several splits."""
    rows = [Row(600), Row(256), Row(257), Row(64), Row(1), Row(150, 3)]
    exact = Inputs.random(len(rows), 600, kv_heads=1, group=7, head_dim=128)
    inputs = Inputs(exact.q.to(dtype), exact.k.to(dtype), exact.v.to(dtype))
    step = Step(inputs, rows, 64, TritonBatch)
    attended = step.attend(step.build())
    assert attended.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 4e-3
    assert_close(attended, naive(inputs, rows), atol=tolerance, rtol=tolerance)


def test_a_chunk_longer_than_a_tile_behind_a_cached_prefix() -> None:
    rows = [Row(200, 150), Row(20)]
    inputs = Inputs.random(len(rows), 200, kv_heads=1, group=2, head_dim=16)
    step = Step(inputs, rows, 16, TritonBatch)
    assert_close(step.attend(step.build()), naive(inputs, rows), atol=1e-5, rtol=1e-5)


def test_a_step_for_a_graph_is_the_same_step() -> None:
    """What a graph repeats is prepared without lengths, for the longest context there can be."""
    rows = [Row(5), Row(300), Row(257), Row(1)]
    inputs = Inputs.random(len(rows), 300, kv_heads=2, group=7, head_dim=16)
    step = Step(inputs, rows, 16, TritonBatch)
    plain = step.build()
    attended = step.attend(plain)
    captured = TritonBatch.decode(
        positions=plain.positions,
        kv_indices=plain.kv_indices,
        block_tables=step.block_tables,
        longest_context=1024,
    )
    assert torch.equal(step.attend(captured), attended)


@pytest.mark.parametrize("padding", [-1, 10**6])
def test_padding_of_block_tables_is_never_looked_at(padding: int) -> None:
    rows = [Row(40, 3), Row(5), Row(4, 4), Row(1)]
    inputs = Inputs.random(len(rows), 40, kv_heads=1, group=4, head_dim=16)
    step = Step(inputs, rows, 16, TritonBatch)
    tables = step.block_tables.clone()
    for index, row in enumerate(rows):
        tables[index, -(-row.context // 16) :] = padding
    assert_close(step.attend(step.build(tables)), naive(inputs, rows), atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter warns of NaN
def test_one_sequence_gone_wrong_stays_alone() -> None:
    rows = [Row(20), Row(21), Row(20, 5), Row(9, 9)]
    inputs = Inputs.random(len(rows), 30, kv_heads=1, group=4, head_dim=16)
    for x in (inputs.q, inputs.k, inputs.v):
        x[[0, 2]] = torch.nan
    step = Step(inputs, rows, 16, TritonBatch)
    attended = step.attend(step.build())
    bad = torch.tensor([True, False, *[True] * 5, *[False] * 9])
    assert bool(attended[bad].isnan().all())
    assert_close(attended[~bad], naive(inputs, rows)[~bad], atol=1e-5, rtol=1e-5)


def test_company_does_not_change_a_bit() -> None:
    contexts = [700, 1, 40, 300]
    inputs = Inputs.random(len(contexts), max(contexts), kv_heads=1, group=7, head_dim=16)
    together = Step(inputs, [Row(context) for context in contexts], 16, TritonBatch)
    attended = together.attend(together.build())
    for index, context in enumerate(contexts):
        own = slice(index, index + 1)
        alone = Inputs(inputs.q[own], inputs.k[own], inputs.v[own])
        step = Step(alone, [Row(context)], 16, TritonBatch)
        assert torch.equal(step.attend(step.build())[0], attended[index])


@pytest.mark.parametrize("size", [2, 100])
def test_chunks_do_not_change_a_bit(size: int) -> None:
    length = 300
    inputs = exact_inputs(length)
    whole = Step(inputs, [Row(length, length)], 16, TritonBatch)
    attended = whole.attend(whole.build())
    for start in range(30, length - 1, 90):
        end = min(start + size, length)
        chunk = Step(inputs, [Row(end, end - start)], 16, TritonBatch)
        assert torch.equal(chunk.attend(chunk.build()), attended[start:end])


def test_both_kernels_agree_with_the_reference_where_a_row_changes_kernels() -> None:
    inputs = Inputs.random(1, 90, kv_heads=2, group=4, head_dim=16)
    results = []
    for backend in (TritonBatch, SdpaBatch):
        for row in (Row(90), Row(90, 2)):
            step = Step(inputs, [row], 16, backend)
            results.append(step.attend(step.build())[-1])
    for result in results[1:]:
        assert_close(result, results[0], atol=1e-5, rtol=1e-5)


def test_tiles_cover_a_row_once() -> None:
    assert query_tiles(7, 300, 50, 2) == [[7, 128, 50, 2], [135, 128, 178, 2], [263, 44, 306, 2]]
    assert query_tiles(0, 128, 0, 0) == [[0, 128, 0, 0]]
