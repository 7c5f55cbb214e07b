"""How long steps keep the device: for metrics, and for the budget of the steps to come."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from server.engine.plan import StepPlan, StepResult
from server.messages import StepReport


class StepClock:
    """Told of every launch and every end, in order.

    Args:
        stages: of the pipeline: a plan may repeat the rows of the one so many before it.
        clock: in seconds.
    """

    def __init__(self, stages: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._launched: deque[tuple[float, StepPlan]] = deque()
        self._last_rows = deque([0] * stages, maxlen=stages)
        self._ended_s = 0.0

    def launch(self, plan: StepPlan) -> None:
        self._launched.append((self._clock(), plan))

    def forget(self) -> None:
        """What was launched never ends."""
        self._launched.clear()
        self._ended_s = self._clock()

    def end(self, result: StepResult) -> StepReport:
        """Of the oldest launched step. Steps overlap: the device turns to a step when it has done
        the one before, or at the launch where it had nothing to do."""
        launched_s, plan = self._launched.popleft()
        now_s = self._clock()
        began_s = max(launched_s, self._ended_s)
        self._ended_s = now_s
        rows = self._last_rows[0] if plan.rows is None else len(plan.rows)
        self._last_rows.append(rows)
        return StepReport(
            now_s - began_s,
            rows if plan.rows is None else sum(row.count for row in plan.rows),
            result.encode_seconds,
            rows,
            len(plan.encodes),
            sum(len(row.guesses) for row in plan.rows or ()),
        )
