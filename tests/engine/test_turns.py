from __future__ import annotations

from tests.engine.fake import FakeRunner, limits, make_submit
from tests.engine.harness import Harness
from tests.engine.test_scheduler import Checked


def rows_of_steady_plans(stages: int, requests: int) -> list[int]:
    """How many rows each plan has while all requests decode."""
    room = limits(slots=requests, kv_blocks=80, step_token_budget=40, stages=stages)
    harness = Checked(room)
    for request_id in range(requests):
        harness.submit(make_submit(request_id, [3, 4, request_id], max_tokens=20))
    harness.run()
    harness.check_answers()
    plans = harness.runner.plans[stages * 2 : stages * 6]
    rows = 0
    counts: list[int] = []
    history: list[int] = []
    for plan in harness.runner.plans:
        rows = history[-stages] if plan.rows is None else len(plan.rows)
        history.append(rows)
        if plan in plans:
            counts.append(rows)
    return counts


def test_one_stage_decodes_everybody_in_every_step() -> None:
    assert set(rows_of_steady_plans(1, 6)) == {6}


def test_stages_share_the_requests_evenly() -> None:
    assert set(rows_of_steady_plans(2, 6)) == {3}
    assert set(rows_of_steady_plans(3, 7)) == {2, 3}


def test_steady_turns_are_not_said_again() -> None:
    runner = FakeRunner(limits(slots=4, kv_block_size=64, kv_blocks=8, stages=2))
    harness = Harness(runner)
    for request_id in range(4):
        harness.submit(make_submit(request_id, [1, 2], max_tokens=30))
    harness.run()
    steady = runner.plans[8:40]
    assert all(plan.rows is None for plan in steady)


def test_a_request_alone_waits_for_its_token() -> None:
    harness = Checked(limits(stages=4))
    harness.submit(make_submit(0, [1, 2, 3], max_tokens=9))
    harness.run()
    harness.check_answers()
    assert len(harness.runner.plans) == 9, "no step was launched for nothing"
