from __future__ import annotations

from array import array

import pytest

from server.engine.plan import Encode, Install, Row, StepPlan
from server.messages import SamplingParams
from server.model.internvl import InternVLChat
from tests import golden
from tests.runner.requests import make_runner

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
