"""The budget on simulated machines: streams decode while long prompts are computed beside them."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count, pairwise

import pytest

from server.engine.plan import Pending, StepPlan
from server.engine.scheduler import Scheduler
from server.engine.step_budget import ALONE_LARGEST, LARGEST, SMALLEST, StepBudget
from server.engine.step_clock import StepClock
from server.messages import StepReport
from server.runner.null import NullRunner
from tests.engine.fake import limits, make_submit

TARGET_S = 0.05
ROOM = limits(
    slots=16, kv_blocks=4096, kv_block_size=16, max_model_len=40_000, step_token_budget=512
)

Machine = Callable[[int, int], float]
"""Seconds that a step takes, by its rows and by the tokens of prompts in it."""


def line(rows: int, prompt_tokens: int) -> float:
    return 0.012 + 0.0003 * rows + 0.0001 * prompt_tokens


def roofline(rows: int, prompt_tokens: int) -> float:
    """Tokens are free while the weights are on their way."""
    return max(0.016, 0.00011 * (rows + prompt_tokens)) + 0.0001 * rows


def dear(rows: int, prompt_tokens: int) -> float:
    """A slow machine with a large fixed part, for which the first budget is far too much."""
    return 0.03 + 0.0005 * (rows + prompt_tokens)


class Simulation:
    """The engine's loop on a clock that only steps move."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.now_s = 0.0
        self.budget = StepBudget(ROOM, TARGET_S)
        self.steps: list[StepReport] = []
        self.token_times: dict[int, list[float]] = {}
        self._scheduler = Scheduler(ROOM, prefix_cache=False)
        self._runner = NullRunner(ROOM, (1,))
        self._clock = StepClock(1, lambda: self.now_s)
        self._free_s = 0.0
        self._rows = 0
        self._pending: deque[tuple[Pending, float, bool]] = deque()
        self._ids = count()

    def submit(self, prompt_tokens: int, max_tokens: int) -> int:
        request_id = next(self._ids)
        submit = make_submit(request_id, [3] * prompt_tokens, max_tokens=max_tokens)
        assert not self._scheduler.submit(b"api-0", submit, [])
        return request_id

    def turn(self) -> None:
        alone = self._scheduler.nobody_decodes
        plan = self._scheduler.schedule(self.budget.tokens(alone=alone))
        if plan is not None:
            self._clock.launch(plan)
            self._free_s = max(self._free_s, self.now_s) + self._seconds(plan)
            self._pending.append((self._runner.launch(plan), self._free_s, alone))
        if self._pending and (plan is None or len(self._pending) == 2):
            pending, ends_s, alone = self._pending.popleft()
            result = pending.result()
            self.now_s = ends_s
            step = self._clock.end(result)
            if not alone:
                self.budget.note(step)
            self.steps.append(step)
            for _, delta in self._scheduler.retire(result):
                self.token_times.setdefault(delta.id, []).append(self.now_s)

    def _seconds(self, plan: StepPlan) -> float:
        if plan.rows is not None:
            self._rows = len(plan.rows)
        tokens = self._rows if plan.rows is None else sum(row.count for row in plan.rows)
        return self.machine(self._rows, tokens - self._rows)

    def stream(self, rows: int) -> list[int]:
        """Lets some requests decode for a while."""
        ids = [self.submit(20, 10_000) for _ in range(rows)]
        for _ in range(12):
            self.turn()
        return ids

    def prefill(self, prompt_tokens: int) -> list[StepReport]:
        """Has a prompt computed; returns the steps that computed it."""
        begin = len(self.steps)
        request_id = self.submit(prompt_tokens, 1)
        while request_id not in self.token_times:
            self.turn()
        return [step for step in self.steps[begin:] if step.tokens > step.rows]

    def pauses(self, request_id: int, since_s: float) -> Iterator[float]:
        """Between the tokens of a stream."""
        times = [time_s for time_s in self.token_times[request_id] if time_s >= since_s]
        return (after - before for before, after in pairwise(times))


@pytest.mark.parametrize("machine", [line, roofline, dear])
def test_streams_keep_their_pace_while_a_prompt_is_computed(machine: Machine) -> None:
    simulation = Simulation(machine)
    streams = simulation.stream(4)
    learning, *_ = simulation.prefill(4000), simulation.stream(0)
    too_long = [step for step in learning if step.seconds > TARGET_S]
    assert len(too_long) <= 4, "a few steps show what the machine can do"
    since_s = simulation.now_s
    steps = simulation.prefill(20_000)
    assert max(pause for one in streams for pause in simulation.pauses(one, since_s)) <= TARGET_S
    used_s = [step.seconds for step in steps[1:-1]]
    assert min(used_s) > 0.75 * TARGET_S, "whatever the target allows is used"


def test_streams_come_and_go() -> None:
    simulation = Simulation(line)
    streams = simulation.stream(1)
    simulation.prefill(6000)
    for rows in (9, 2, 3):
        streams += simulation.stream(rows)
        since_s = simulation.now_s
        simulation.prefill(12_000)
        pauses = [pause for one in streams for pause in simulation.pauses(one, since_s)]
        assert max(pauses) <= TARGET_S


def test_prompts_get_dearer_the_longer_they_are() -> None:
    done = 0

    def quadratic(rows: int, prompt_tokens: int) -> float:
        nonlocal done
        done += prompt_tokens
        return line(rows, prompt_tokens) + 1e-8 * prompt_tokens * done

    simulation = Simulation(quadratic)
    (stream,) = simulation.stream(1)
    simulation.prefill(2000)
    done, since_s = 0, simulation.now_s
    steps = simulation.prefill(36_000)
    assert max(simulation.pauses(stream, since_s)) <= TARGET_S
    assert steps[5].tokens > 2 * steps[-2].tokens


def test_a_machine_that_slows_down_costs_a_few_long_pauses() -> None:
    simulation = Simulation(line)
    (stream,) = simulation.stream(1)
    simulation.prefill(6000)
    simulation.machine = lambda rows, prompt_tokens: 2 * line(rows, prompt_tokens)
    since_s = simulation.now_s
    simulation.prefill(6000)
    # Each correction comes a step late: another is on its way when a step has shown too much.
    assert sum(pause > TARGET_S for pause in simulation.pauses(stream, since_s)) <= 4
    simulation.machine = line
    steps = simulation.prefill(20_000)
    assert steps[-2].seconds > 0.75 * TARGET_S, "and what it can do again is used again"


def test_steps_that_vary_stay_within_the_target() -> None:
    chance = random.Random(5)

    def noisy(rows: int, prompt_tokens: int) -> float:
        hiccup = 3.0 if chance.random() < 0.02 else 1.0
        return hiccup * chance.uniform(0.95, 1.05) * line(rows, prompt_tokens)

    simulation = Simulation(noisy)
    (stream,) = simulation.stream(1)
    simulation.prefill(6000)
    since_s = simulation.now_s
    steps = simulation.prefill(38_000)
    hiccups = sum(step.seconds > 1.5 * TARGET_S for step in steps)
    assert 0 < hiccups < 0.1 * len(steps)
    assert sum(pause > TARGET_S for pause in simulation.pauses(stream, since_s)) == hiccups
    assert sum(step.seconds for step in steps) / len(steps) > 0.7 * TARGET_S


def test_prompts_get_half_of_the_time_where_decoding_alone_is_too_slow() -> None:
    simulation = Simulation(lambda rows, prompt_tokens: 0.2 + 0.001 * prompt_tokens)
    (stream, _) = simulation.stream(2)
    simulation.prefill(3000)
    since_s = simulation.now_s
    steps = simulation.prefill(4000)
    pauses = [pause for pause in simulation.pauses(stream, since_s) if pause > 0.21]
    assert min(pauses[1:-1]) > 0.35
    assert max(pauses) <= 0.41
    assert len(steps) <= 4000 / 150 + 2


def test_prompts_get_on_however_slow_they_are() -> None:
    simulation = Simulation(lambda rows, prompt_tokens: 0.03 + 0.01 * prompt_tokens)
    simulation.stream(2)
    simulation.prefill(1000)
    assert simulation.budget.prompt_tokens == SMALLEST


def test_a_prompt_that_is_alone_takes_longer_steps() -> None:
    simulation = Simulation(line)
    steps = simulation.prefill(3 * ALONE_LARGEST)
    assert [step.tokens for step in steps] == [ALONE_LARGEST] * 3
    assert simulation.budget.prompt_tokens == ROOM.step_token_budget, "nothing was learned of them"
    (stream,) = simulation.stream(1)
    since_s = simulation.now_s
    simulation.prefill(8000)
    assert sum(pause > TARGET_S for pause in simulation.pauses(stream, since_s)) <= 4


def note(budget: StepBudget, seconds: float, tokens: int, rows: int, **others: int) -> None:
    budget.note(StepReport(seconds, tokens, rows=rows, **others))


def test_a_short_prompt_tells_nothing_about_long_ones() -> None:
    budget = StepBudget(ROOM, TARGET_S)
    note(budget, 0.015, tokens=40, rows=2)
    assert budget.prompt_tokens == ROOM.step_token_budget


def test_pictures_count_as_the_tokens_that_they_cost() -> None:
    room = limits(step_token_budget=512, image_cost_tokens=200)
    budget = StepBudget(room, TARGET_S)
    note(budget, 0.09, tokens=101, rows=1, pictures=2)
    assert budget.prompt_tokens == 500 * 0.045 / 0.09


def test_guesses_are_no_prompts() -> None:
    budget = StepBudget(ROOM, TARGET_S)
    for _ in range(20):
        note(budget, TARGET_S, tokens=8, rows=1, guesses=7)
    assert budget.prompt_tokens == ROOM.step_token_budget
    note(budget, 2 * TARGET_S, tokens=108, rows=1, guesses=7)
    assert budget.prompt_tokens < ROOM.step_token_budget, "a prompt beside them is one"


def test_stages_share_the_target() -> None:
    one, four = StepBudget(ROOM, TARGET_S), StepBudget(limits(stages=4), TARGET_S)
    for _ in range(20):
        note(one, 0.012, tokens=one.prompt_tokens + 1, rows=1)
        note(four, 0.012, tokens=four.prompt_tokens + 1, rows=1)
    assert one.prompt_tokens == LARGEST
    assert four.prompt_tokens == SMALLEST


def test_no_step_is_as_large_again_as_one_that_did_not_fit_into_the_memory() -> None:
    budget = StepBudget(ROOM, TARGET_S)
    budget.shrink()
    for _ in range(9):
        note(budget, 0.001, tokens=budget.prompt_tokens + 1, rows=1)
    assert budget.prompt_tokens == ROOM.step_token_budget // 2
