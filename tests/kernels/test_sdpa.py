"""The plain-torch backend against one query and one head at a time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from tests.kernels.paged_step import Inputs, Row, Step, naive

ROWS = st.builds(
    lambda context, part: Row(context, max(1, round(context * part))),
    st.integers(1, 40),
    st.one_of(st.just(0.0), st.floats(0.0, 1.0)),
)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    rows=st.lists(ROWS, min_size=1, max_size=5),
    kv_heads=st.integers(1, 3),
    group=st.sampled_from([1, 4, 7]),
    block_size=st.sampled_from([1, 3, 4, 16]),
)
def test_equals_one_query_at_a_time(
    rows: list[Row], kv_heads: int, group: int, block_size: int
) -> None:
    inputs = Inputs.random(len(rows), 40, kv_heads=kv_heads, group=group)
    step = Step(inputs, rows, block_size)
    assert_close(step.attend(step.build()), naive(inputs, rows), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rows", [[Row(600), Row(9), Row(512), Row(513)], [Row(530, 20)]])
def test_contexts_longer_than_a_padding_unit(rows: list[Row]) -> None:
    inputs = Inputs.random(len(rows), 600, kv_heads=1, group=7)
    step = Step(inputs, rows, block_size=16)
    assert_close(step.attend(step.build()), naive(inputs, rows), atol=1e-5, rtol=1e-5)


def test_bfloat16() -> None:
    rows = [Row(30, 11), Row(30), Row(7)]
    exact = Inputs.random(len(rows), 30, kv_heads=2, group=4)
    inputs = Inputs(exact.q.bfloat16(), exact.k.bfloat16(), exact.v.bfloat16())
    step = Step(inputs, rows)
    attended = step.attend(step.build())
    assert attended.dtype == torch.bfloat16
    assert_close(attended, naive(inputs, rows), atol=0.03, rtol=0)


def test_writes_the_new_positions_of_its_layer_only() -> None:
    rows = [Row(6, 4), Row(3)]
    inputs = Inputs.random(len(rows), 6, kv_heads=2, group=1)
    step = Step(inputs, rows)
    step.attend(step.build())
    keys, values = step.cache.layer(1)
    for index, row in enumerate(rows):
        positions = torch.arange(row.context)
        assert torch.equal(keys[step.places(index, positions)], inputs.k[index, : row.context])
        assert torch.equal(values[step.places(index, positions)], inputs.v[index, : row.context])
    assert int((~keys[:, 0, 0].isnan()).sum()) == sum(row.context for row in rows)
    assert bool(step.cache.keys[0].isnan().all())


@pytest.mark.parametrize("reader_first", [True, False])
def test_a_row_may_read_what_another_row_of_the_step_writes(reader_first: bool) -> None:
    """Two equal prompts: one computes the shared block, the other attends to it."""
    inputs = Inputs.random(1, 10, kv_heads=2, group=4)
    inputs = Inputs(
        inputs.q.repeat(2, 1, 1, 1), inputs.k.repeat(2, 1, 1, 1), inputs.v.repeat(2, 1, 1, 1)
    )
    rows = [Row(10, 2), Row(10, 10)] if reader_first else [Row(10, 10), Row(10, 2)]
    writer = int(reader_first)
    step = Step(inputs, rows)
    step.block_tables[1 - writer, :2] = step.block_tables[writer, :2]
    assert_close(step.attend(step.build()), naive(inputs, rows), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("padding", [-1, 10**6])
def test_padding_of_block_tables_is_never_looked_at(padding: int) -> None:
    rows = [Row(40, 3), Row(5), Row(4, 4), Row(1)]
    inputs = Inputs.random(len(rows), 40, kv_heads=2, group=4)
    step = Step(inputs, rows)
    tables = step.block_tables.to(torch.int32)
    for index, row in enumerate(rows):
        tables[index, -(-row.context // step.block_size) :] = padding
    assert_close(step.attend(step.build(tables)), naive(inputs, rows), atol=1e-5, rtol=1e-5)


def test_one_sequence_gone_wrong_stays_alone() -> None:
    rows = [Row(20), Row(21), Row(20, 5), Row(9, 9)]
    inputs = Inputs.random(len(rows), 30, kv_heads=2, group=4)
    for x in (inputs.q, inputs.k, inputs.v):
        x[[0, 2]] = torch.nan
    step = Step(inputs, rows)
    attended = step.attend(step.build())
    bad = torch.tensor([True, False, *[True] * 5, *[False] * 9])
    assert bool(attended[bad].isnan().all())
    assert_close(attended[~bad], naive(inputs, rows)[~bad], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("group", [1, 4, 7])
@pytest.mark.parametrize("contexts", [[5, 300], [700, 1, 40, 200]])
def test_company_does_not_change_a_bit(group: int, contexts: list[int]) -> None:
    inputs = Inputs.random(len(contexts), max(contexts), kv_heads=2, group=group, head_dim=16)
    together = Step(inputs, [Row(context) for context in contexts])
    attended = together.attend(together.build())
    for index, context in enumerate(contexts):
        own = slice(index, index + 1)
        alone = Step(Inputs(inputs.q[own], inputs.k[own], inputs.v[own]), [Row(context)])
        assert torch.equal(alone.attend(alone.build())[0], attended[index])


@pytest.mark.parametrize("group", [1, 4, 7])
@pytest.mark.parametrize("size", [1, 2, 5, 16, 100])
def test_chunks_do_not_change_a_bit(group: int, size: int) -> None:
    length = 560
    inputs = Inputs.random(1, length, kv_heads=2, group=group, head_dim=16)
    whole = Step(inputs, [Row(length, length)], block_size=16)
    attended = whole.attend(whole.build())
    for start in range(0, length, 7 * size):
        end = min(start + size, length)
        chunk = Step(inputs, [Row(end, end - start)], block_size=16)
        assert torch.equal(chunk.attend(chunk.build()), attended[start:end])
