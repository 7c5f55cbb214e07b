"""What a follower does with its orders; tests/runner/test_parallel.py has the arithmetic."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from server.distributed.plans import Launch, Order, Rehearse
from server.engine.plan import Install, Row, StepPlan
from server.messages import SamplingParams
from server.model.internvl import InternVLChat
from server.runner.ranks import Follower, PlanLostError
from server.runner.runner import LocalRunner
from tests.runner.requests import make_runner


class Orders:
    """What the leader sent, and how the follower's pulse went."""

    def __init__(self, *orders: Order) -> None:
        self._orders = iter(orders)
        self.pulse: list[str] = []

    def receive(self, wait_s: float) -> Order | None:
        return next(self._orders, None)

    def beat(self) -> None:
        self.pulse.append("beat")

    def forget(self) -> None:
        self.pulse.append("forget")


PROMPT = Install(0, bytes(8), 2, 0, [0], SamplingParams(seed=1))
PLANS = [StepPlan(0, installs=[PROMPT], rows=[Row(0, 2)]), *(StepPlan(step) for step in (1, 2, 3))]
PLANS[1] = StepPlan(1, rows=[Row(0, 1)])


@pytest.fixture
def runner(model: InternVLChat) -> Iterator[LocalRunner]:
    runner = make_runner(model)
    yield runner
    runner.close()


def test_plans_are_followed_in_their_order(runner: LocalRunner) -> None:
    orders = Orders(*(Launch(plan) for plan in PLANS))
    follower = Follower(runner, orders, orders)
    for _ in PLANS:
        follower.step(wait_s=0)
    follower.step(wait_s=0)
    assert runner.launch(StepPlan(4)).result().step == 4, "the fifth is due"


@pytest.mark.parametrize(
    ("came", "due"), [([0, 1, 3], 2), ([1], 0), ([0, 1, 1], 2)], ids=["gap", "late", "twice"]
)
def test_a_gap_in_the_plans_is_named(runner: LocalRunner, came: list[int], due: int) -> None:
    orders = Orders(*(Launch(PLANS[step]) for step in came))
    with pytest.raises(PlanLostError, match=f"plan {came[-1]} came where plan {due} was due"):
        Follower(runner, orders, orders).run()


def test_no_pulse_is_expected_while_kernels_are_compiled(runner: LocalRunner) -> None:
    orders = Orders(Rehearse(PLANS[0]), Launch(PLANS[1]))
    with pytest.raises(PlanLostError):
        Follower(runner, orders, orders).run()
    assert orders.pulse == ["beat", "forget", "beat"]
