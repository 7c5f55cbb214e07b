"""A request's tokens are its own: alone, in a crowd, in chunks, preempted, from the cache."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from server.messages import FinishReason, SamplingParams
from server.model.internvl import InternVLChat
from tests import golden
from tests.engine.harness import Harness
from tests.runner.requests import Asked, ask, ask_golden, ask_golden_batch, make_runner

SAMPLED = [
    SamplingParams(temperature=1.0, seed=1),
    SamplingParams(temperature=0.7, top_p=0.9, seed=2),
    SamplingParams(temperature=1.3, top_k=20, seed=3),
    SamplingParams(temperature=1.0, min_p=0.05, seed=4),
    SamplingParams(temperature=1.0, presence_penalty=0.8, frequency_penalty=0.5, seed=5),
    SamplingParams(temperature=0.9, repetition_penalty=1.2, top_k=50, top_p=0.95, seed=2**63 - 1),
]

SHORT = 128
"""Tokens that the smallest cache holds."""


def crowd() -> list[Asked]:
    """32 requests: every golden one, and seeded ones of all kinds on golden prompts."""
    batch, _ = ask_golden_batch()
    requests = [ask_golden(name) for name in golden.CONVERSATIONS] + batch
    for index in range(32 - len(requests)):
        case = golden.case(golden.CONVERSATIONS[index % len(golden.CONVERSATIONS)])
        sampling = SAMPLED[index % len(SAMPLED)]
        name = f"{case['name']} sampled {index}"
        requests.append(
            ask(name, case["token_ids"], case["images"], sampling, max_tokens=8 + 3 * index)
        )
    return requests


CROWD = crowd()


def length(asked: Asked) -> int:
    return len(asked.submit.prompt) // 4 + asked.submit.max_tokens


@contextmanager
def harness(model: InternVLChat, *, prefix_cache: bool = True, **limits: int) -> Iterator[Harness]:
    runner = make_runner(model, **limits)
    try:
        yield Harness(runner, prefix_cache=prefix_cache)
    finally:
        runner.close()


@pytest.fixture(scope="module")
def alone(model: InternVLChat) -> dict[str, list[int]]:
    """The answer to each request on its own, without any cache."""
    answers = {}
    for asked in CROWD:
        with harness(model, prefix_cache=False) as single:
            single.submit(asked.numbered(0), asked.pixels)
            single.run()
            answers[asked.name] = single.tokens(0)
    return answers


def check(crowd: Harness, requests: Sequence[Asked], alone: dict[str, list[int]]) -> None:
    for request_id, asked in enumerate(requests):
        assert crowd.tokens(request_id) == alone[asked.name], asked.name


def submit_all(crowd: Harness, requests: Sequence[Asked], first_id: int = 0) -> None:
    for request_id, asked in enumerate(requests, start=first_id):
        crowd.submit(asked.numbered(request_id), asked.pixels)


def test_alone_they_are_the_authors_tokens(alone: dict[str, list[int]]) -> None:
    for name in golden.CONVERSATIONS:
        assert alone[name] == golden.case(name)["generated_ids"], name
    batch, answers = ask_golden_batch()
    for asked, answer in zip(batch, answers, strict=True):
        assert alone[asked.name] == answer


@pytest.mark.parametrize(
    "limits",
    [
        pytest.param({}, id="32 at once"),
        pytest.param({"step_token_budget": 16, "slots": 8}, id="chunks of 16"),
        pytest.param({"step_token_budget": 16, "slots": 32, "image_slots": 1}, id="one image slot"),
        pytest.param({"slots": 5, "image_slots": 2}, id="five slots"),
    ],
)
@pytest.mark.parametrize("prefix_cache", [True, False])
def test_in_a_crowd(
    model: InternVLChat, alone: dict[str, list[int]], limits: dict[str, int], prefix_cache: bool
) -> None:
    with harness(model, prefix_cache=prefix_cache, **limits) as crowd:
        submit_all(crowd, CROWD)
        crowd.run()
        check(crowd, CROWD, alone)


def test_preempted(model: InternVLChat, alone: dict[str, list[int]]) -> None:
    requests = [asked for asked in CROWD if length(asked) <= SHORT]
    assert len(requests) > 16
    with harness(model, kv_blocks=8, max_model_len=SHORT) as crowd:
        submit_all(crowd, requests)
        crowd.run()
        check(crowd, requests, alone)
        assert crowd.scheduler.gauges().preemptions_total > 0


def test_from_the_prefix_cache(model: InternVLChat, alone: dict[str, list[int]]) -> None:
    with harness(model) as crowd:
        submit_all(crowd, CROWD)
        crowd.run()
        encoded = crowd.scheduler.gauges().images_encoded_total
        submit_all(crowd, CROWD, first_id=len(CROWD))
        crowd.run()
        for index, asked in enumerate(CROWD):
            again = index + len(CROWD)
            assert crowd.tokens(again) == alone[asked.name], asked.name
            cached = crowd.deltas[again][0].cached_tokens
            assert cached == (len(asked.submit.prompt) // 4 - 1) // 16 * 16
        assert crowd.scheduler.gauges().images_encoded_total - encoded <= 1


def test_after_200_cancellations(model: InternVLChat, alone: dict[str, list[int]]) -> None:
    chance = random.Random(7)
    with harness(model, kv_blocks=40, slots=8) as crowd:
        for round_number in range(200):
            asked = chance.choice(CROWD)
            crowd.submit(asked.numbered(1000 + round_number), asked.pixels)
            for _ in range(chance.randrange(3)):
                crowd.step()
            crowd.cancel(1000 + chance.randrange(round_number + 1))
        for request_id in range(1000, 1200):
            crowd.cancel(request_id)
        submit_all(crowd, CROWD)
        crowd.run()
        check(crowd, CROWD, alone)
        finished = [crowd.finish(request_id) for request_id in range(1000, 1200)]
        assert finished.count(FinishReason.CANCELLED) > 150


def test_the_seed_decides(model: InternVLChat) -> None:
    case = golden.case("image_single")
    answers = []
    for seed in (1, 2, 1):
        with harness(model) as single:
            asked = ask("x", case["token_ids"], case["images"], SamplingParams(seed=seed))
            single.submit(asked.numbered(0), asked.pixels)
            single.run()
            answers.append(single.tokens(0))
    assert answers[0] == answers[2] != answers[1]
