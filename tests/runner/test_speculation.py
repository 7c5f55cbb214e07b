"""Guesses change how many steps an answer takes, never the answer."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from server.messages import SamplingParams
from server.model.internvl import InternVLChat
from tests import golden
from tests.engine.harness import Harness
from tests.runner.requests import Asked, ask, make_runner
from tests.runner.test_invariance import CROWD, SAMPLED, SHORT, length

GREEDY = SamplingParams(temperature=0.0)


def few_tokens(token_ids: list[int], **others: Any) -> SamplingParams:
    """Greedy among a few tokens, unless the others say something else."""
    return SamplingParams(**{"temperature": 0.0, "allowed_token_ids": token_ids, **others})


def prompts(count: int) -> list[Asked]:
    """Parts of golden prompts put together anew. The model's own answers hardly repeat anything, so
    every other one may use three tokens only: then many guesses are right, where they are wrong
    otherwise."""
    chance = random.Random(11)
    words = golden.case("text_history")["token_ids"] + golden.case("text_en")["token_ids"]
    asked = []
    for index in range(count):
        begin, size = chance.randrange(len(words) - 8), chance.randrange(4, 12)
        part = words[begin : begin + size]
        tokens = [chance.choice(words), *part, *chance.choices(words, k=3), *part]
        sampling = few_tokens(chance.sample(words, 3)) if index % 2 else GREEDY
        name, max_tokens = f"prompt {index}", chance.randrange(6, 17)
        asked.append(ask(name, tokens, [], sampling, max_tokens=max_tokens))
    return asked


@contextmanager
def harness(model: InternVLChat, *, speculate: bool, **limits: int) -> Iterator[Harness]:
    runner = make_runner(model, **limits)
    try:
        yield Harness(runner, speculate=speculate)
    finally:
        runner.close()


def answers(run: Harness, requests: Sequence[Asked]) -> list[list[int]]:
    for request_id, asked in enumerate(requests):
        run.submit(asked.numbered(request_id), asked.pixels)
    run.run()
    return [run.tokens(request_id) for request_id in range(len(requests))]


def test_200_prompts_get_the_tokens_of_plain_greedy_decoding(model: InternVLChat) -> None:
    requests = prompts(200)
    with harness(model, speculate=False) as plain:
        expected = answers(plain, requests)
    with harness(model, speculate=True, slots=8) as guessing:
        assert answers(guessing, requests) == expected
        gauges = guessing.scheduler.gauges()
    right, wrong = gauges.confirmed_tokens_total, gauges.guessed_tokens_total
    assert right > 200
    assert wrong - right > 100


def with_few_tokens(asked: Asked, stop_ids: list[int]) -> Asked:
    sampling = msgspec.structs.replace(asked.submit.sampling, allowed_token_ids=[5, 40, 77])
    submit = msgspec.structs.replace(asked.submit, sampling=sampling, stop_ids=stop_ids)
    return Asked(asked.name, submit, asked.pixels)


REPETITIVE = [with_few_tokens(asked, [77]) for asked in CROWD[::2]]
"""Greedy and seeded, filtered and penalised, with and without pictures."""


@pytest.fixture(scope="module")
def expected(model: InternVLChat) -> list[list[int]]:
    with harness(model, speculate=False) as plain:
        return answers(plain, REPETITIVE)


@pytest.mark.parametrize(
    "limits",
    [
        pytest.param({"slots": 8}, id="eight at once"),
        pytest.param({"slots": 3, "step_token_budget": 16}, id="chunks of 16"),
    ],
)
def test_seeds_penalties_and_pictures(
    model: InternVLChat, expected: list[list[int]], limits: dict[str, int]
) -> None:
    with harness(model, speculate=True, **limits) as guessing:
        assert answers(guessing, REPETITIVE) == expected
        assert guessing.scheduler.gauges().confirmed_tokens_total > 0


def test_preempted(model: InternVLChat) -> None:
    requests = [with_few_tokens(asked, []) for asked in CROWD[::2] if length(asked) <= SHORT]
    with harness(model, speculate=False) as plain:
        expected = answers(plain, requests)
    with harness(model, speculate=True, slots=8, kv_blocks=8, max_model_len=SHORT) as guessing:
        assert answers(guessing, requests) == expected
        gauges = guessing.scheduler.gauges()
    assert gauges.preemptions_total > 0
    assert gauges.confirmed_tokens_total > 0


def test_log_probabilities_and_what_bends_the_logits(model: InternVLChat) -> None:
    shapes = [
        few_tokens([5, 40], logprobs=3),
        few_tokens([5, 40, 77], temperature=1.0, seed=6, logprobs=2, bad_words=[[5, 5], [40, 77]]),
        few_tokens([7, 40], min_tokens=20, logprobs=0),
        *(msgspec.structs.replace(one, allowed_token_ids=[5, 7], logprobs=1) for one in SAMPLED),
    ]
    words = golden.case("text_en")["token_ids"]
    requests = [
        ask(f"shape {index}", words, [], sampling, max_tokens=30)
        for index, sampling in enumerate(shapes)
    ]
    runs = []
    for speculate in (False, True):
        with harness(model, speculate=speculate) as run:
            answers(run, requests)
            runs.append(run)
    plain, guessing = runs
    assert guessing.scheduler.gauges().confirmed_tokens_total > 0
    for request_id in range(len(requests)):
        assert guessing.tokens(request_id) == plain.tokens(request_id)
        for ours, theirs in zip(guessing.deltas[request_id], plain.deltas[request_id], strict=True):
            assert ours.logprobs is not None and theirs.logprobs is not None
            assert len(ours.logprobs) == len(ours.token_ids) == 1
            assert ours.logprobs[0].top_ids == theirs.logprobs[0].top_ids
            assert ours.logprobs[0].logprob == pytest.approx(theirs.logprobs[0].logprob, abs=1e-5)
