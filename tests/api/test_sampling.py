from __future__ import annotations

from typing import Any

import pytest

from server.api.sampling import OPENAI_DEFAULTS, SEEDS, choice_params
from server.api.schemas import ChatRequest
from server.messages import SamplingParams
from server.model.spec import GenerationSpec


def params(defaults: GenerationSpec = OPENAI_DEFAULTS, **fields: Any) -> list[SamplingParams]:
    messages = [{"role": "user", "content": "Hi"}]
    request = ChatRequest.model_validate({"model": "m", "messages": messages, **fields})
    return choice_params(request, defaults)


def test_openai_defaults_are_neutral() -> None:
    assert params(seed=0) == [SamplingParams()]


def test_the_checkpoints_defaults_fill_what_is_left_out() -> None:
    defaults = GenerationSpec(temperature=0.7, top_p=0.9, top_k=50, repetition_penalty=1.1)
    assert params(defaults, seed=0, top_k=3) == [
        SamplingParams(temperature=0.7, top_p=0.9, top_k=3, repetition_penalty=1.1)
    ]


def test_every_parameter_arrives() -> None:
    (sampling,) = params(
        temperature=0,
        top_k=5,
        top_p=0.5,
        min_p=0.1,
        presence_penalty=0.2,
        frequency_penalty=-0.3,
        repetition_penalty=1.5,
        seed=9,
    )
    assert sampling == SamplingParams(0.0, 5, 0.5, 0.1, 0.2, -0.3, 1.5, 9)


@pytest.mark.parametrize("off", [0, -1])
def test_both_ways_to_switch_top_k_off(off: int) -> None:
    assert params(top_k=off)[0].top_k == 0


def test_choices_count_up_from_the_seed() -> None:
    assert [p.seed for p in params(n=3, seed=41)] == [41, 42, 43]


@pytest.mark.parametrize("seed", [-(2**63), -1, 2**63 - 1])
def test_every_seed_gives_distinct_seeds_that_fit(seed: int) -> None:
    seeds = [p.seed for p in params(n=3, seed=seed)]
    assert len(set(seeds)) == 3
    assert all(0 <= seed < SEEDS for seed in seeds)


def test_without_a_seed_every_choice_draws_its_own() -> None:
    assert len({p.seed for p in [*params(n=8), *params(n=8)]}) == 16
