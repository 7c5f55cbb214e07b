from __future__ import annotations

import pytest

from server.errors import StartupError
from server.model.shards import ShardPlan, split_layers, text_weights, vision_weights
from server.model.spec import ModelSpec, parse_config
from server.model.stages import peers_of, stage_of
from tests import golden
from tests.model.test_shards import partitions
from tests.model.test_spec import PUBLISHED

REAL = parse_config(PUBLISHED)
TINY = ModelSpec.load(golden.CHECKPOINT)


def held(plan: ShardPlan) -> list[int]:
    """Parameters of each rank."""
    return [text_weights(REAL.text, rank.text) + vision_weights(REAL, rank) for rank in plan.ranks]


@pytest.mark.parametrize("stages", range(1, 9))
@pytest.mark.parametrize("size", [1, 2, 3])
def test_stages_hold_everything_once_and_are_even(stages: int, size: int) -> None:
    plan = ShardPlan.make(REAL, size, stages=stages)
    assert partitions(split_layers(REAL, stages), 60)
    whole = held(ShardPlan.make(REAL, size))
    assert len(plan.ranks) == size * stages
    assert sum(held(plan)) == sum(whole)
    # Layers are whole: a stage may be a layer from the mean, and the tower is in one piece.
    layer = 560_000_000 / size
    tower = (vision_weights(REAL, ShardPlan.make(REAL, size).ranks[0])) + 0.5e9 / size
    mean = sum(whole) / len(plan.ranks)
    assert max(held(plan)) <= max(mean + layer, tower + layer) * 1.02


def test_the_tower_costs_its_stage_layers() -> None:
    first, second = split_layers(REAL, 2)
    assert (len(first), len(second)) == (25, 35)


def test_only_the_ends_embed_and_predict() -> None:
    ranks = ShardPlan.make(TINY, 2, stages=3).ranks
    assert [rank.text.predicts for rank in ranks] == [True, True, False, False, False, False]
    assert [rank.text.embeds for rank in ranks] == [False, False, False, False, True, True]


@pytest.mark.parametrize(("size", "vision_tp", "stages"), [(1, 1, 2), (2, 1, 3), (4, 2, 2)])
def test_neighbours_agree(size: int, vision_tp: int, stages: int) -> None:
    ranks = range(size * stages)
    peers = [peers_of(rank, size, vision_tp, stages) for rank in ranks]
    for rank, own in zip(ranks, peers, strict=True):
        for group in ("model", "vision", "towers"):
            members = getattr(own, group)
            assert rank in members
            assert all(list(getattr(peers[other], group)) == list(members) for other in members)
        if own.next is not None:
            assert peers[own.next].previous == rank
            assert stage_of(own.next, size, stages) == stage_of(rank, size, stages) + 1
        if own.tokens_to is not None:
            assert peers[own.tokens_to].tokens_from == rank
    assert sum(own.next is not None for own in peers) == size * (stages - 1)
    assert sum(own.tokens_to is not None for own in peers) == size * (stages > 1)


def test_one_stage_has_no_neighbours() -> None:
    own = peers_of(1, 2, 2, 1)
    assert (own.previous, own.next, own.tokens_from, own.tokens_to) == (None,) * 4


def test_too_many_stages_are_refused() -> None:
    with pytest.raises(StartupError, match="5 stages cannot share 4 layers"):
        ShardPlan.make(TINY, 1, stages=5)
