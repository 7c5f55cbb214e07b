"""The leader and its followers: one policy, many devices."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn, Protocol

from server.distributed.plans import Launch, Order, OrderSender, Provide, Rehearse
from server.engine.plan import RunnerLimits, StepPlan, StepResult
from server.messages import Ready
from server.runner.pending import PendingStep
from server.runner.runner import LocalRunner


class PlanLostError(Exception):
    """Orders do not come as they were sent; this rank's state is worth nothing any more."""


LOOK_S = 0.2
"""How often a follower without orders looks whether a step of its own has failed."""


@dataclass(frozen=True, slots=True)
class LedStep:
    """A step that all ranks execute; the leader's tokens are everybody's."""

    local: PendingStep
    sender: OrderSender

    def provide(self, masks: Sequence[bytes | None]) -> None:
        self.sender.send(Provide(list(masks)))
        self.local.provide(masks)

    def result(self) -> StepResult:
        return self.local.result()


class Leader:
    """A `Runner` that is rank 0 of several: each plan goes to the others first."""

    def __init__(self, runner: LocalRunner, sender: OrderSender, ranks: int) -> None:
        self._runner = runner
        self._sender = sender
        self._ranks = ranks

    @property
    def limits(self) -> RunnerLimits:
        return self._runner.limits

    @limits.setter
    def limits(self, limits: RunnerLimits) -> None:
        self._runner.limits = limits

    def launch(self, plan: StepPlan) -> LedStep:
        self._sender.send(Launch(plan))
        return LedStep(self._runner.launch(plan), self._sender)

    def rehearse(self, plan: StepPlan) -> None:
        self._sender.send(Rehearse(plan))
        self._runner.rehearse(plan)

    def describe(self) -> Ready:
        return self._runner.describe(self._ranks)

    def recover(self) -> bool:
        """The other ranks may be in the middle of a collective of the step that failed here: only
        a new start brings all of them to the same place."""
        return False

    def close(self) -> None:
        self._sender.close()
        self._runner.close()


class Pulse(Protocol):
    """What tells others that a rank's loop turns."""

    def beat(self) -> None: ...

    def forget(self) -> None: ...


class Receiver(Protocol):
    def receive(self, wait_s: float) -> Order | None: ...


class Follower:
    """Any other rank: executes what it is told. Its loop waits for nobody, so its pulse stops only
    when its process does."""

    def __init__(self, runner: LocalRunner, receiver: Receiver, pulse: Pulse) -> None:
        self._runner = runner
        self._receiver = receiver
        self._pulse = pulse
        self._launched: deque[PendingStep] = deque()
        self._unmasked: deque[PendingStep] = deque()
        self._due = 0

    def run(self) -> NoReturn:
        """Follows until the process is told to end. What a step raises ends it too."""
        while True:
            self._pulse.beat()
            self.step(LOOK_S)

    def step(self, wait_s: float) -> None:
        match self._receiver.receive(wait_s):
            case Launch(plan):
                self._check_order(plan)
                launched = self._runner.launch(plan)
                self._launched.append(launched)
                if plan.masked:
                    self._unmasked.append(launched)
            case Provide(masks):
                self._unmasked.popleft().provide(masks)
            case Rehearse(plan):
                self._pulse.forget()  # the first steps may have kernels to compile
                self._runner.rehearse(plan)
        self._read_back()

    def _check_order(self, plan: StepPlan) -> None:
        if plan.step != self._due:
            raise PlanLostError(
                f"plan {plan.step} came where plan {self._due} was due: this rank has lost its "
                "place, and all ranks are started again"
            )
        self._due += 1

    def _read_back(self) -> None:
        while self._launched and self._launched[0].sampled.done():
            self._launched.popleft().result()
