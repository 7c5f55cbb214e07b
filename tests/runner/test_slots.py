from __future__ import annotations

from array import array
from collections.abc import Sequence

import pytest
import torch

from server.engine.plan import Install, Row, RunnerLimits, StepPlan
from server.messages import SamplingParams
from server.runner.shaping import shape_logits
from server.runner.slots import Slots

LIMITS = RunnerLimits(
    slots=2,
    kv_blocks=4,
    kv_block_size=16,
    image_slots=1,
    image_cost_tokens=1,
    step_token_budget=64,
    max_model_len=64,
    vocab_size=8,
    tokens_per_image=1,
    image_bytes=3,
)


def install(slot: int, sampling: SamplingParams, stop_ids: Sequence[int] = ()) -> Install:
    return Install(
        slot=slot,
        tokens=array("i", [1, 2, 3]).tobytes(),
        prompt_length=3,
        computed=0,
        blocks=[slot],
        sampling=sampling,
        stop_ids=list(stop_ids),
    )


def test_lists_of_tokens_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    slots = Slots(LIMITS, torch.device("cpu"))
    listed = SamplingParams(
        allowed_token_ids=[6, 2, 1, 0],
        logit_bias={2: 5.0},
        bad_words=[[6], [3, 1], [2, 0]],
        min_tokens=2,
    )
    installs = [install(0, listed, stop_ids=[2]), install(1, SamplingParams(presence_penalty=1.0))]
    slots.apply(StepPlan(0, installs=installs, rows=[Row(0, 3), Row(1, 3)]))
    assert slots.sampling_row(1, 3).rules is None
    slots.tokens[0, 3:5] = torch.tensor([7, 3])
    monkeypatch.setattr(torch, "tensor", None)
    shaped = []
    for position in (3, 5):
        logits = torch.zeros(8)
        shape_logits(logits, slots.sampling_row(0, position))
        shaped.append(logits.tolist())
    banned = -torch.inf
    assert shaped[0] == [0.0, 0.0, *[banned] * 6], "the end is held back"
    assert shaped[1] == [0.0, banned, 5.0, *[banned] * 5], "a bad word would be complete"
