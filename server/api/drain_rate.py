"""How fast choices end, measured: what a full server tells clients about when to come back."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

WINDOW_S = 60.0
ENDS_MAX = 1024


class DrainRate:
    """Ends of choices within the last minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ends: deque[float] = deque(maxlen=ENDS_MAX)

    def count_end(self) -> None:
        """One more choice has ended."""
        self._ends.append(self._clock())

    def seconds_for(self, choices: int) -> float | None:
        """How long so many choices take to end; None when too little has ended to tell."""
        now = self._clock()
        while self._ends and self._ends[0] < now - WINDOW_S:
            self._ends.popleft()
        if len(self._ends) < 2:
            return None
        return choices * (now - self._ends[0]) / len(self._ends)
