from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.errors import StartupError
from server.model.shards import (
    ShardPlan,
    balanced,
    even,
    split_layers,
    split_text,
    text_matrices,
    text_weights,
    vision_weights,
)
from server.model.spec import ModelSpec, parse_config
from tests import golden
from tests.model.test_spec import PUBLISHED

REAL = parse_config(PUBLISHED)
TINY = ModelSpec.load(golden.CHECKPOINT)


def partitions(ranges: Sequence[range], total: int) -> bool:
    """The ranges cover 0 to `total` once, in order, and none is empty."""
    ends = [0, *(part.stop for part in ranges)]
    return (
        all(
            part.start == start and len(part) > 0
            for part, start in zip(ranges, ends[:-1], strict=True)
        )
        and ends[-1] == total
    )


def check(spec: ModelSpec, plan: ShardPlan) -> None:
    text = [rank.text for rank in plan.ranks]
    vision = [rank.vision for rank in plan.ranks]
    queries = spec.text.num_heads // spec.text.num_kv_heads
    assert partitions([part.heads for part in text], spec.text.num_heads)
    assert partitions([part.mlp for part in text], spec.text.intermediate_size)
    assert partitions([part.vocabulary for part in text], spec.text.vocab_size)
    for part in text:
        assert {head // queries for head in part.heads} == set(part.kv_heads)
        assert len(part.heads) % len(part.kv_heads) == 0, "each KV head serves equally many"
    for start in range(0, len(plan.ranks), plan.vision_tp):
        members = vision[start : start + plan.vision_tp]
        assert partitions([part.heads for part in members], spec.vision.num_heads)
        assert partitions([part.mlp for part in members], spec.vision.intermediate_size)
        group = plan.ranks[start : start + plan.vision_tp]
        assert partitions([rank.projector for rank in group], spec.text.hidden_size)
        assert {rank.vision_group for rank in group} == {start // plan.vision_tp}


@pytest.mark.parametrize("spec", [REAL, TINY], ids=["real", "tiny"])
@pytest.mark.parametrize("size", range(1, 9))
def test_every_part_is_held_once(spec: ModelSpec, size: int) -> None:
    for vision_tp in (tp for tp in range(1, size + 1) if size % tp == 0):
        check(spec, ShardPlan.make(spec, size, vision_tp))


@pytest.mark.parametrize("size", range(1, 9))
def test_the_40b_never_shares_a_kv_head_and_is_balanced(size: int) -> None:
    plan = ShardPlan.make(REAL, size)
    kv_heads = [head for rank in plan.ranks for head in rank.text.kv_heads]
    assert kv_heads == list(range(8))
    weights = [text_weights(REAL.text, rank.text) for rank in plan.ranks]
    assert max(weights) / (sum(weights) / size) < 1.01
    tower = [vision_weights(REAL, rank) for rank in plan.ranks]
    assert max(tower) / (sum(tower) / size) < 1.02


def most_over_mean(weights: Sequence[int]) -> str:
    return f"{100 * (max(weights) * len(weights) / sum(weights) - 1):.2f} %"


def listed(parts: Sequence[range]) -> str:
    """Their sizes; equal neighbours once."""
    runs = [(size, len(list(run))) for size, run in groupby(map(len, parts))]
    return " + ".join(f"{count} x {size}" if count > 1 else f"{size}" for size, count in runs)


def balance_row(size: int) -> str:
    ranks = ShardPlan.make(REAL, size).ranks
    cells = (
        str(size),
        listed([rank.text.heads for rank in ranks]),
        listed([rank.text.mlp for rank in ranks]),
        listed([rank.text.vocabulary for rank in ranks]),
        listed([rank.vision.heads for rank in ranks]),
        listed([rank.vision.mlp for rank in ranks]),
        most_over_mean([text_weights(REAL.text, rank.text) for rank in ranks]),
        most_over_mean([vision_weights(REAL, rank) for rank in ranks]),
    )
    return f"| {' | '.join(cells)} |"


@pytest.mark.parametrize("size", range(1, 9))
def test_the_balance_of_the_40b_is_printed(size: int) -> None:
    page = (Path(__file__).parents[2] / "docs/performance.md").read_text(encoding="utf-8")
    row = balance_row(size)
    print(row)
    assert row in page


def test_one_rank_holds_what_the_checkpoint_holds() -> None:
    (rank,) = ShardPlan.make(REAL, 1).ranks
    assert text_weights(REAL.text, rank.text) == 34_389_017_600
    assert vision_weights(REAL, rank) == 5_536_496_000 + 143_170_560


def test_the_25_heads_of_the_vision_tower_split_exactly() -> None:
    def heads(size: int) -> list[int]:
        return [len(rank.vision.heads) for rank in ShardPlan.make(REAL, size).ranks]

    assert heads(2) == [13, 12]
    assert heads(4) == [7, 6, 6, 6]
    assert heads(8) == [4] + [3] * 7


def test_light_ranks_get_more_columns() -> None:
    ranks = ShardPlan.make(REAL, 5).ranks
    by_heads = {len(rank.text.heads): len(rank.text.mlp) for rank in ranks}
    assert by_heads[7] > by_heads[14]


def test_shared_kv_heads_are_replicated() -> None:
    ranks = ShardPlan.make(TINY, 5).ranks
    assert [rank.text.kv_heads.start for rank in ranks] == [0, 0, 0, 1, 1]
    assert [len(rank.text.heads) for rank in ranks] == [2, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("size", "vision_tp", "message"),
    [
        (4, 3, "do not divide 4 ranks"),
        (0, None, "do not divide"),
        (9, None, "9 ranks cannot share the 8 attention heads of the language model"),
    ],
)
def test_what_cannot_be_split_is_explained(size: int, vision_tp: int | None, message: str) -> None:
    with pytest.raises(StartupError, match=re.escape(message)):
        ShardPlan.make(TINY, size, vision_tp)


def test_too_many_ranks_for_a_kv_head_are_refused() -> None:
    spec = replace(TINY.text, num_kv_heads=3, num_heads=6)
    assert len(split_text(spec, 6)) == 6
    with pytest.raises(StartupError, match="cannot share 3 KV heads"):
        split_text(replace(spec, num_kv_heads=3, num_heads=3), 4)


@st.composite
def models(draw: st.DrawFn) -> ModelSpec:
    """Of any sizes."""
    kv_heads, group = draw(st.integers(1, 12)), draw(st.integers(1, 8))
    text = replace(
        TINY.text,
        num_kv_heads=kv_heads,
        num_heads=kv_heads * group,
        hidden_size=draw(st.integers(8, 512)),
        intermediate_size=draw(st.integers(8, 3000)),
        vocab_size=draw(st.integers(8, 3000)),
        num_layers=draw(st.integers(1, 40)),
    )
    heads = draw(st.integers(1, 30))
    vision = replace(
        TINY.vision,
        num_heads=heads,
        hidden_size=8 * heads,
        intermediate_size=draw(st.integers(8, 3000)),
    )
    return replace(TINY, text=text, vision=vision)


@settings(derandomize=True, max_examples=300)
@given(spec=models(), size=st.integers(1, 8), vision_tp=st.integers(1, 8), stages=st.integers(1, 6))
def test_any_model_is_held_once_or_refused(
    spec: ModelSpec, size: int, vision_tp: int, stages: int
) -> None:
    try:
        plan = ShardPlan.make(spec, size, vision_tp, stages=stages)
    except StartupError:
        text = spec.text
        group = text.num_heads // text.num_kv_heads
        assert (
            size % vision_tp
            or vision_tp > spec.vision.num_heads
            or stages > text.num_layers
            or -(-size // text.num_kv_heads) > group
        )
        return
    assert partitions(split_layers(spec, stages), spec.text.num_layers)
    for first in range(0, size * stages, size):
        check(spec, replace(plan, ranks=plan.ranks[first : first + size]))
    whole = ShardPlan.make(spec, 1).ranks[0]
    shared = sum(text_matrices(spec.text, rank.text) for rank in plan.ranks)
    assert shared >= text_matrices(spec.text, whole.text)


@settings(derandomize=True, max_examples=200)
@given(total=st.integers(1, 5000), parts=st.integers(1, 12), unit=st.sampled_from([1, 16, 64]))
def test_even_ranges_partition(total: int, parts: int, unit: int) -> None:
    if total < parts:
        return
    ranges = even(total, parts, unit)
    assert partitions(ranges, total)
    sizes = [len(part) for part in ranges]
    assert max(sizes) - min(sizes) <= 2 * unit


@settings(derandomize=True, max_examples=200)
@given(
    units=st.integers(1, 400),
    loads=st.lists(st.integers(0, 10_000), min_size=1, max_size=8),
    cost=st.integers(1, 50),
)
def test_balanced_ranges_partition_and_even_out(units: int, loads: list[int], cost: int) -> None:
    total = 64 * units
    ranges = balanced(total, loads, cost, 64)
    assert partitions(ranges, total)
    sums = [load + cost * len(part) for load, part in zip(loads, ranges, strict=True)]
    possible = max(max(loads) + 64 * cost, (sum(loads) + total * cost) / len(loads))
    assert max(sums) <= possible + 64 * cost * len(loads)
