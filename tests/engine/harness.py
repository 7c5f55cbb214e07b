"""Drives a scheduler over a runner by hand, with as many steps in flight as the engine has."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from server.engine.plan import OutOfMemoryError, Pending, Runner, StepPlan
from server.engine.request import Matcher
from server.engine.scheduler import PeerDelta, Scheduler
from server.messages import Delta, FinishReason, Submit

PEER = b"api-0"


class Harness:
    """Collects the deltas of each request and checks the invariants at every turn."""

    def __init__(
        self, runner: Runner, *, prefix_cache: bool = True, speculate: bool = False
    ) -> None:
        self._runner = runner
        self.scheduler = Scheduler(runner.limits, prefix_cache=prefix_cache, speculate=speculate)
        self.deltas: dict[int, list[Delta]] = {}
        self._pending: deque[tuple[StepPlan, Pending]] = deque()

    def submit(
        self, submit: Submit, pixels: Sequence[bytes] = (), matcher: Matcher | None = None
    ) -> None:
        self._note(self.scheduler.submit(PEER, submit, list(pixels), matcher))

    def cancel(self, request_id: int) -> None:
        self._note(self.scheduler.cancel(PEER, request_id))

    def step(self) -> bool:
        """One turn; false when there is nothing left to do."""
        plan = self.scheduler.schedule()
        self.scheduler.check_integrity()
        if plan is not None:
            self._pending.append((plan, self._runner.launch(plan)))
            if len(self._pending) == 1:
                self._provide_masks()
        if self._pending and (plan is None or len(self._pending) == self._runner.limits.stages + 1):
            try:
                self._note(self.scheduler.retire(self._pending.popleft()[1].result()))
            except OutOfMemoryError as failure:
                assert self._runner.recover()
                self._pending.clear()
                self._note(self.scheduler.start_over(encoding=failure.encoding))
            self._provide_masks()
            self.scheduler.check_integrity()
        return not self.scheduler.idle

    def _provide_masks(self) -> None:
        if self._pending and self._pending[0][0].masked:
            self._pending[0][1].provide(self.scheduler.masks())

    def run(self) -> None:
        while self.step():
            pass
        gauges = self.scheduler.gauges()
        assert gauges.kv_blocks_used == gauges.image_slots_used == 0, "something was not given back"
        assert gauges.requests_running == gauges.requests_waiting == 0

    def tokens(self, request_id: int) -> list[int]:
        return [token for delta in self.deltas[request_id] for token in delta.token_ids]

    def finish(self, request_id: int) -> FinishReason | None:
        """The reason of the one terminal message, which is the last one."""
        reasons = [delta.finish for delta in self.deltas[request_id] if delta.finish]
        assert len(reasons) == 1
        assert self.deltas[request_id][-1].finish
        return reasons[0]

    def _note(self, deltas: list[PeerDelta]) -> None:
        for _, delta in deltas:
            self.deltas.setdefault(delta.id, []).append(delta)
