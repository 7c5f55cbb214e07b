"""The engine's single-threaded loop: receive, schedule, launch, retire, report.

Up to two steps are in flight: step n+1 is launched before the tokens of step n are read, so the
device never waits for the policy. A layer pipeline has one step in each stage and one more that
waits for the first of them. Whatever arrives is looked at once per step, without waiting while
there is work.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NoReturn

from server.engine.intake import Compiler, Incoming, Intake
from server.engine.plan import OutOfMemoryError, Pending, Runner, StepPlan
from server.engine.scheduler import PeerDelta, Scheduler
from server.engine.state_line import StateLine
from server.engine.step_budget import StepBudget
from server.engine.step_clock import StepClock
from server.ipc import EngineEndpoint
from server.messages import (
    Cancel,
    Delta,
    FinishReason,
    Gauges,
    Hello,
    Outputs,
    Ready,
    StepReport,
    Submit,
)

COMPILING_POLL_S = 0.002
"""How often an engine that waits for a grammar alone looks whether it is there."""

NO_GRAMMAR = "The grammar of the answer cannot be compiled."

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Launched:
    plan: StepPlan
    pending: Pending
    alone: bool
    """Whether nobody decoded when it was planned."""


class Engine:
    """Ties a runner to the API processes.

    Args:
        compiler: of the grammars that answers must match.
        ready: what `Hello` is answered with.
        budget: of the steps, where the times of steps decide about it.
        check_integrity: assert every invariant after each step.
        beat: called at each turn of the loop, at least every `turn_s` seconds while it is alive.
        note_in_flight: told which inputs the launched steps compute.
    """

    def __init__(
        self,
        runner: Runner,
        endpoint: EngineEndpoint,
        scheduler: Scheduler,
        compiler: Compiler,
        ready: Ready,
        *,
        budget: StepBudget | None = None,
        check_integrity: bool = False,
        beat: Callable[[], None] = lambda: None,
        note_in_flight: Callable[[Iterable[bytes]], None] = lambda _: None,
        turn_s: float = 1.0,
    ) -> None:
        self._runner = runner
        self._depth = runner.limits.stages + 1
        self._endpoint = endpoint
        self._scheduler = scheduler
        self._intake = Intake(compiler)
        self._ready = ready
        self._budget = budget
        self._check_integrity = check_integrity
        self._beat = beat
        self._note_in_flight = note_in_flight
        self._turn_s = turn_s
        self._pending: deque[_Launched] = deque()
        self._peers: set[bytes] = set()
        self._step_clock = StepClock(runner.limits.stages)
        self._state_line = StateLine()

    def run(self) -> NoReturn:
        """Serves until the process is told to end. What the device raises ends the loop too."""
        while True:
            self._beat()
            self.step(wait_s=self._turn_s)

    def step(self, wait_s: float | None) -> None:
        """One turn of the loop; with nothing to do it waits up to `wait_s` for a message."""
        if not self._scheduler.idle:
            wait_s = 0.0
        elif self._intake.busy:
            wait_s = COMPILING_POLL_S
        self._receive(wait_s)
        alone = self._scheduler.nobody_decodes
        plan = self._scheduler.schedule(self._budget.tokens(alone=alone) if self._budget else None)
        if plan is not None:
            self._note_in_flight(self._scheduler.in_flight())
            self._step_clock.launch(plan)
            self._pending.append(_Launched(plan, self._runner.launch(plan), alone))
            if len(self._pending) == 1:
                self._provide_masks()
        if self._pending and (plan is None or len(self._pending) == self._depth):
            oldest = self._pending.popleft()
            try:
                result = oldest.pending.result()
            except OutOfMemoryError as failure:
                self._recover(failure)
                return
            step = self._step_clock.end(result)
            if self._budget is not None and not oldest.alone:
                self._budget.note(step)
            deltas = self._scheduler.retire(result)
            self._note_in_flight(self._scheduler.in_flight())
            self._report(deltas, step)
            self._provide_masks()
        if self._check_integrity:
            self._scheduler.check_integrity()

    def _recover(self, failure: OutOfMemoryError) -> None:
        """Goes on without whoever asked for too much."""
        if not self._runner.recover():
            raise failure
        self._pending.clear()
        self._step_clock.forget()
        if self._budget is not None and not failure.encoding:
            self._budget.shrink()
        deltas = self._scheduler.start_over(encoding=failure.encoding)
        where = "the vision tower" if failure.encoding else "the language model"
        log.error("out of memory in %s: %d requests failed, all others go on", where, len(deltas))
        self._note_in_flight(self._scheduler.in_flight())
        self._report(deltas)

    def _provide_masks(self) -> None:
        """Lets the oldest pending step draw: whatever came before it has been read."""
        if self._pending:
            oldest = self._pending[0]
            if oldest.plan.masked:
                oldest.pending.provide(self._scheduler.masks())

    def _receive(self, wait_s: float | None) -> None:
        deltas: list[PeerDelta] = []
        for peer, message, pictures in self._endpoint.receive(wait_s):
            match message:
                case Submit(grammar=None):
                    deltas += self._scheduler.submit(peer, message, pictures)
                case Submit():
                    self._intake.add(peer, message, pictures)
                case Cancel():
                    if self._intake.cancel(peer, message.id):
                        deltas.append((peer, Delta(message.id, [], FinishReason.CANCELLED)))
                    deltas += self._scheduler.cancel(peer, message.id)
                case Hello():
                    self._welcome(peer)
        for incoming in self._intake.compiled():
            deltas += self._submit_compiled(incoming)
        if deltas:
            self._report(deltas)

    def _submit_compiled(self, incoming: Incoming) -> list[PeerDelta]:
        peer, submit = incoming.peer, incoming.submit
        if incoming.matcher.exception() is not None:
            return [(peer, Delta(submit.id, [], FinishReason.ERROR, error=NO_GRAMMAR))]
        return self._scheduler.submit(peer, submit, incoming.pixels, incoming.matcher.result())

    def _welcome(self, peer: bytes) -> None:
        log.info("connected to %s", peer.decode(errors="replace"))
        self._intake.forget_peer(peer)
        self._scheduler.forget_peer(peer)
        self._peers.add(peer)
        self._endpoint.send(peer, self._ready)
        # An engine with nothing to do would not say what it has done so far.
        self._endpoint.send(peer, Outputs([], self._gauges()))

    def _report(self, deltas: Iterable[PeerDelta], step: StepReport | None = None) -> None:
        """One message to each API process, also to those without news: the gauges are for all."""
        by_peer: dict[bytes, list[Delta]] = {peer: [] for peer in self._peers}
        for peer, delta in deltas:
            by_peer.setdefault(peer, []).append(delta)
        gauges = self._gauges()
        self._state_line.note(gauges)
        for peer, news in by_peer.items():
            self._endpoint.send(peer, Outputs(news, gauges, step))

    def _gauges(self) -> Gauges:
        budget = self._runner.limits.step_token_budget
        return self._scheduler.gauges(self._budget.prompt_tokens if self._budget else budget)
