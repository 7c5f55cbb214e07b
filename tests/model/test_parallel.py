"""The model in parts gives what it gives as a whole, for any number of ranks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from server.distributed.groups import Groups
from server.model.internvl import InternVLChat
from server.model.shards import ShardPlan
from server.model.spec import ModelSpec
from server.model.weights import load_model
from tests.distributed.threads import run_ranks
from tests.golden import CHECKPOINT, case
from tests.model.paged import PagedSequences
from tests.model.pictures import golden_pixels
from tests.model.test_llama import check_conversation, whole_conversation

SPEC = ModelSpec.load(CHECKPOINT)
NAMES = ("two_separate_round2", "text_zh_emoji")
LAYOUTS = [(size, tp) for size in range(1, 9) for tp in range(1, size + 1) if size % tp == 0]


def load_part(rank: int, groups: Groups, plan: ShardPlan) -> InternVLChat:
    return load_model(
        CHECKPOINT,
        SPEC,
        torch.float32,
        torch.device("cpu"),
        shard=plan.ranks[rank],
        groups=groups,
    )


@pytest.mark.parametrize(("size", "vision_tp"), LAYOUTS)
def test_the_authors_numbers_in_parts(size: int, vision_tp: int) -> None:
    plan = ShardPlan.make(SPEC, size, vision_tp)

    def work(rank: int, groups: Groups) -> list[Tensor]:
        model = load_part(rank, groups, plan)
        sequences = [whole_conversation(model, name) for name in NAMES]
        return PagedSequences(model, sequences).run([[len(s) for s in sequences]])

    results = run_ranks(size, vision_tp, work)
    for index, name in enumerate(NAMES):
        check_conversation(torch.cat([parts[index] for parts in results], dim=1), name)


@pytest.mark.parametrize(
    ("size", "vision_tp", "stages"), [(1, 1, 2), (2, 2, 2), (2, 1, 2), (1, 1, 4)]
)
def test_the_authors_numbers_in_stages(size: int, vision_tp: int, stages: int) -> None:
    plan = ShardPlan.make(SPEC, size, vision_tp, stages=stages)

    def work(rank: int, groups: Groups) -> list[Tensor]:
        model = load_part(rank, groups, plan)
        if groups.previous is None:
            sequences = [whole_conversation(model, name) for name in NAMES]
        else:
            empty = [torch.empty(length(name), SPEC.text.hidden_size) for name in NAMES]
            sequences = [groups.previous.receive(states) for states in empty]
        paged = PagedSequences(model, sequences)
        states = paged.states([[len(sequence) for sequence in sequences]])
        if groups.next is None:
            return [model.logits(hidden) for hidden in states]
        for hidden in states:
            groups.next.send(hidden)
        return []

    results = run_ranks(size, vision_tp, work, stages=stages)
    assert not any(results[size:]), "logits of an early stage"
    for index, name in enumerate(NAMES):
        logits = torch.cat([parts[index] for parts in results[:size]], dim=1)
        check_conversation(logits, name)


def length(name: str) -> int:
    """Of a conversation, without its last token."""
    return len(case(name)["token_ids"]) + len(case(name)["generated_ids"]) - 1


@pytest.mark.parametrize("vision_tp", [2, 3, 5, 8])
def test_the_tower_in_parts(golden_images: dict[str, Tensor], vision_tp: int) -> None:
    """25 heads divide by none of these but 5; queries and keys are normalised over all of them."""
    plan = ShardPlan.make(SPEC, vision_tp, vision_tp)
    pixels = golden_pixels(["rgb_square.png", "rgb_wide.jpg", "exif6.jpg"])
    for embeddings in run_ranks(
        vision_tp,
        vision_tp,
        lambda rank, groups: load_part(rank, groups, plan).encode_images(pixels),
    ):
        for index, name in enumerate(("rgb_square", "rgb_wide", "exif6")):
            assert_close(
                embeddings[index], golden_images[f"{name}.vit_embeds"], atol=1e-4, rtol=1e-4
            )


def test_ranks_hold_parts_and_no_more() -> None:
    def size_of(model: InternVLChat) -> int:
        language = model.language
        return sum(layer.attention.qkv.weight.numel() for layer in language.layers) + sum(
            layer.mlp.down.weight.numel() for layer in language.layers
        )

    plan = ShardPlan.make(SPEC, 2)
    halves = run_ranks(2, 2, lambda rank, groups: size_of(load_part(rank, groups, plan)))
    (whole,) = run_ranks(
        1, 1, lambda rank, groups: size_of(load_part(rank, groups, ShardPlan.make(SPEC, 1)))
    )
    assert halves == [whole // 2] * 2
