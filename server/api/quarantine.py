"""Inputs that were in the engine when it died: after a few deaths they are refused for a time.

One death proves nothing, because a step computes many requests. What was there again at the next
one is refused at once, and so cannot end the engine as often as its clients ask. Bounded in number
and in time; every API process remembers all inputs of a death, not only its own.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

ENTRIES_MAX = 8192


class Quarantine:
    """
    Args:
        deaths: of the engine with an input in it, until the input is refused.
        period_s: how long a death is remembered, and each further one prolongs it.
        clock: in seconds.
    """

    def __init__(
        self, deaths: int, period_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._deaths = deaths
        self._period_s = period_s
        self._clock = clock
        self._seen: OrderedDict[bytes, tuple[int, float]] = OrderedDict()
        """Fingerprint to the number of deaths and when they are forgotten; oldest first."""

    def count_death(self, fingerprints: Iterable[bytes]) -> None:
        """The engine has died with these in it."""
        forget_at_s = self._clock() + self._period_s
        for fingerprint in fingerprints:
            self._seen[fingerprint] = (self._count(fingerprint) + 1, forget_at_s)
            self._seen.move_to_end(fingerprint)
        while len(self._seen) > ENTRIES_MAX:
            self._seen.popitem(last=False)

    def holds(self, fingerprint: bytes) -> bool:
        """Whether an input must not reach the engine now."""
        return self._count(fingerprint) >= self._deaths

    def _count(self, fingerprint: bytes) -> int:
        count, forget_at_s = self._seen.get(fingerprint, (0, 0.0))
        return count if self._clock() < forget_at_s else 0
