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
        clock: in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._launched: deque[tuple[float, StepPlan]] = deque()
        self._rows = 0
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
        if plan.rows is not None:
            self._rows = len(plan.rows)
        return StepReport(
            now_s - began_s,
            self._rows if plan.rows is None else sum(row.count for row in plan.rows),
            result.encode_seconds,
            self._rows,
            len(plan.encodes),
        )
