from __future__ import annotations

from server.engine.plan import Row, StepPlan, StepResult
from server.engine.step_clock import StepClock
from server.messages import StepReport


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_step_counts_from_its_launch_or_from_the_end_of_the_one_before() -> None:
    now = Clock()
    clock = StepClock(1, now)
    now.now = 10.0
    clock.launch(StepPlan(0, rows=[Row(0, 30), Row(1, 1)]))
    now.now = 11.0
    clock.launch(StepPlan(1, rows=[Row(0, 1), Row(1, 1)]))
    now.now = 12.0
    assert clock.end(StepResult(0, [], encode_seconds=0.5)) == StepReport(2.0, 31, 0.5, rows=2)
    now.now = 13.0
    assert clock.end(StepResult(1, [])) == StepReport(1.0, 2, rows=2)


def test_a_plan_without_rows_repeats_those_before() -> None:
    clock = StepClock(1, lambda: 0.0)
    for plan in (StepPlan(0, rows=[Row(0, 9), Row(1, 1)]), StepPlan(1), StepPlan(2)):
        clock.launch(plan)
        tokens = clock.end(StepResult(plan.step, [])).tokens
        assert tokens == (10 if plan.step == 0 else 2)


def test_stages_repeat_the_rows_of_their_own_plan() -> None:
    clock = StepClock(2, lambda: 0.0)
    three, one = [Row(slot, 1) for slot in range(3)], [Row(3, 1)]
    reports = []
    for plan in (StepPlan(0, rows=three), StepPlan(1, rows=one), *map(StepPlan, range(2, 6))):
        clock.launch(plan)
        reports.append(clock.end(StepResult(plan.step, [])))
    assert [report.rows for report in reports] == [3, 1, 3, 1, 3, 1]
    assert [report.tokens for report in reports] == [3, 1, 3, 1, 3, 1]


def test_guesses_are_told_apart() -> None:
    clock = StepClock(1, lambda: 0.0)
    clock.launch(StepPlan(0, rows=[Row(0, 9), Row(1, 4, [7, 8, 9]), Row(2, 2, [5])]))
    step = clock.end(StepResult(0, []))
    assert (step.tokens, step.rows, step.guesses) == (15, 3, 4)
