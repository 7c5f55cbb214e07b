"""A request's tokens are its own for any number of ranks: greedy, seeded, masked, with pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec
import pytest
import torch

from server.engine.plan import Pending, RunnerLimits, StepPlan, StepResult
from server.messages import SamplingParams
from server.model.shards import ShardPlan
from server.model.spec import ModelSpec
from server.model.weights import load_model
from server.runner.runner import LocalRunner
from tests import golden
from tests.distributed.threads import make_groups
from tests.engine.fake import CountingMatcher
from tests.engine.harness import Harness
from tests.runner.requests import END_ID, Asked, ask, ask_golden, make_rank
from tests.runner.test_invariance import SAMPLED
from tests.runner.test_speculation import prompts

SPEC = ModelSpec.load(golden.CHECKPOINT)
NAMES = ("text_zh_emoji", "image_single", "two_separate_round2", "video8")
LAYOUTS = [(2, 2), (2, 1), (3, 3), (4, 2), (5, 5), (7, 1), (8, 8), (8, 2)]
PIPELINES = [(1, 1, 2), (1, 1, 4), (2, 2, 2), (3, 1, 2)]
"""Ranks of a stage, ranks of a tower, stages."""


@dataclass(frozen=True, slots=True)
class PendingOnAll:
    steps: Sequence[Pending]
    drawing: int
    """Ranks of the last stage, which are the first ones."""

    def provide(self, masks: Sequence[bytes | None]) -> None:
        for step in self.steps:
            step.provide(masks)

    def result(self) -> StepResult:
        first, *others = [step.result() for step in self.steps]
        drawing, others = others[: self.drawing - 1], others[self.drawing - 1 :]
        # Only the time that each took is its own.
        same = (msgspec.structs.replace(r, encode_seconds=first.encode_seconds) for r in drawing)
        assert all(result == first for result in same), "ranks drew different tokens"
        assert all(not other.token_ids for other in others), "a token from an early stage"
        return first


class AllRanks:
    """Every rank's runner, given the same plans."""

    def __init__(self, runners: Sequence[LocalRunner], drawing: int) -> None:
        self._runners = runners
        self._drawing = drawing

    @property
    def limits(self) -> RunnerLimits:
        return self._runners[0].limits

    def launch(self, plan: StepPlan) -> PendingOnAll:
        return PendingOnAll([r.launch(plan) for r in self._runners], self._drawing)

    def recover(self) -> bool:
        return False

    def close(self) -> None:
        for runner in self._runners:
            runner.close()


@contextmanager
def ranks(
    size: int, vision_tp: int, stages: int = 1, *, speculate: bool = False, **limits: int
) -> Iterator[Harness]:
    plan = ShardPlan.make(SPEC, size, vision_tp, stages=stages)
    runners = []
    for shard, groups in zip(plan.ranks, make_groups(size, vision_tp, stages), strict=True):
        model = load_model(
            golden.CHECKPOINT,
            SPEC,
            torch.float32,
            torch.device("cpu"),
            shard=shard,
            groups=groups,
        )
        runners.append(make_rank(model, groups, {"stages": stages, **limits}))
    everybody = AllRanks(runners, size)
    try:
        yield Harness(everybody, speculate=speculate)
    finally:
        everybody.close()


def crowd() -> list[Asked]:
    asked = [ask_golden(name) for name in NAMES]
    for index, sampling in enumerate(SAMPLED):
        case = golden.case(NAMES[index % len(NAMES)])
        name = f"sampled {index}"
        asked.append(ask(name, case["token_ids"], case["images"], sampling, max_tokens=16))
    case = golden.case("text_en")
    nothing = SamplingParams(seed=8, allowed_token_ids=[END_ID], min_tokens=2)
    asked.append(ask("nothing left", case["token_ids"], [], nothing, max_tokens=12))
    reported = SamplingParams(seed=9, logprobs=3, logit_bias={5: 3.0, 900: -2.0})
    return [*asked, ask("reported", case["token_ids"], [], reported, max_tokens=12)]


CROWD = crowd()


def answers(harness: Harness) -> list[list[int]]:
    for request_id, asked in enumerate(CROWD):
        harness.submit(asked.numbered(request_id), asked.pixels)
    constrained = ask_golden("text_history")
    harness.submit(constrained.numbered(99), matcher=CountingMatcher1024())
    harness.run()
    return [harness.tokens(request_id) for request_id in (*range(len(CROWD)), 99)]


class CountingMatcher1024(CountingMatcher):
    """Over the golden vocabulary."""

    def __init__(self) -> None:
        super().__init__(size=9)

    def mask(self) -> bytes:
        bits = sum(1 << token for token in range(self.accepted % 3, 1024, 3))
        return bits.to_bytes(128, "little")


@pytest.fixture(scope="module")
def alone() -> list[list[int]]:
    with ranks(1, 1) as harness:
        return answers(harness)


def test_one_rank_gives_the_authors_tokens(alone: list[list[int]]) -> None:
    assert alone[: len(NAMES)] == [golden.case(name)["generated_ids"] for name in NAMES]


@pytest.mark.parametrize(("size", "vision_tp"), LAYOUTS)
def test_the_same_tokens_on_any_ranks(alone: list[list[int]], size: int, vision_tp: int) -> None:
    with ranks(size, vision_tp, slots=6, step_token_budget=40) as harness:
        assert answers(harness) == alone
        logprobs = [d.logprobs for d in harness.deltas[len(CROWD) - 1]]
        assert all(entries and len(entries[0].top_ids) == 3 for entries in logprobs)


def test_ranks_guess_alike() -> None:
    runs = []
    for size in (1, 3):
        with ranks(size, 1, speculate=size > 1, slots=4) as harness:
            for request_id, asked in enumerate(prompts(12)):
                harness.submit(asked.numbered(request_id))
            harness.run()
            runs.append([harness.tokens(request_id) for request_id in range(12)])
    assert runs[0] == runs[1]
    assert harness.scheduler.gauges().confirmed_tokens_total > 10


@pytest.mark.parametrize(("size", "vision_tp", "stages"), PIPELINES)
def test_the_same_tokens_in_stages(
    alone: list[list[int]], size: int, vision_tp: int, stages: int
) -> None:
    with ranks(size, vision_tp, stages, slots=6, step_token_budget=40) as harness:
        assert answers(harness) == alone
