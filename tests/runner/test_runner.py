from __future__ import annotations

from array import array
from typing import Any

import pytest

from server.engine.plan import Encode, Install, Row, StepPlan
from server.engine.request import NOTHING_LEFT
from server.messages import SamplingParams
from server.model.internvl import InternVLChat
from tests import golden
from tests.engine.harness import Harness
from tests.runner.requests import END_ID, ask, ask_golden, make_runner

CASE = golden.case("text_en")
PROMPT: list[int] = CASE["token_ids"]
INSTALL = Install(
    slot=3,
    tokens=array("i", PROMPT).tobytes(),
    prompt_length=len(PROMPT),
    computed=0,
    blocks=[5, 2, 9, 4],
    sampling=SamplingParams(temperature=0.0),
)


def test_steps_are_launched_before_the_first_is_read(model: InternVLChat) -> None:
    """Plans name lengths alone: tokens of earlier steps are read where they are, on the device."""
    runner = make_runner(model)
    first = StepPlan(0, installs=[INSTALL], rows=[Row(3, len(PROMPT))])
    second = StepPlan(1, rows=[Row(3, 1)])
    pending = [runner.launch(plan) for plan in (first, second, StepPlan(2), StepPlan(3))]
    results = [step.result() for step in pending]
    runner.close()
    assert [result.step for result in results] == [0, 1, 2, 3]
    assert [token for result in results for token in result.token_ids] == CASE["generated_ids"][:4]


def test_a_chunk_that_does_not_reach_the_end_samples_nothing(model: InternVLChat) -> None:
    runner = make_runner(model)
    part = StepPlan(0, installs=[INSTALL], rows=[Row(3, 10)])
    rest = StepPlan(1, rows=[Row(3, len(PROMPT) - 10)])
    results = [runner.launch(plan).result().token_ids for plan in (part, rest)]
    runner.close()
    assert results == [[], CASE["generated_ids"][:1]]


def test_a_gap_between_plans_stops_the_runner(model: InternVLChat) -> None:
    runner = make_runner(model)
    with pytest.raises(AssertionError, match="a plan was lost"):
        runner.launch(StepPlan(1, rows=[Row(0, 1)]))
    runner.close()


def test_what_fails_in_a_step_comes_out_of_its_result(model: InternVLChat) -> None:
    runner = make_runner(model)
    plan = StepPlan(
        0, installs=[INSTALL], encodes=[Encode(0, memoryview(b"short"))], rows=[Row(3, 1)]
    )
    pending = runner.launch(plan)
    with pytest.raises(RuntimeError):
        pending.result()
    runner.close()


def test_a_request_for_which_nothing_is_left_ends_alone(model: InternVLChat) -> None:
    runner = make_runner(model)
    harness = Harness(runner, prefix_cache=False)
    harness.submit(ask_golden("text_en").numbered(0))
    limits: list[dict[str, Any]] = [
        {"allowed_token_ids": [END_ID], "min_tokens": 3},
        {"allowed_token_ids": [5], "bad_words": [[5]], "logprobs": 2},
        {"allowed_token_ids": [5], "bad_words": [[5, 5]], "top_p": 0.5, "logprobs": 2},
    ]
    for request_id, names in enumerate(limits, 1):
        asked = ask("limited", PROMPT, [], SamplingParams(seed=3, **names))
        harness.submit(asked.numbered(request_id))
    harness.run()
    runner.close()
    assert harness.tokens(0) == CASE["generated_ids"]
    assert [harness.tokens(request_id) for request_id in (1, 2, 3)] == [[], [], [5]]
    assert all(harness.deltas[i][-1].error == NOTHING_LEFT for i in (1, 2, 3))
