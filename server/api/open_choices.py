"""The choices that clients wait for: those of this API process by id, those of the others as a
number. From both, and from how fast choices end, follows how long somebody new would wait."""

from __future__ import annotations

import random
from collections.abc import Sequence

from server.api.drain_rate import DrainRate
from server.api.submission import Submission
from server.board import Tally

UNKNOWN_WAIT_S, RETRY_AFTER_MAX_S = 2.0, 30.0


class OpenChoices:
    """
    Args:
        tally: of the choices of all API processes.
    """

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._submissions: dict[int, Submission] = {}
        self._rate = DrainRate()

    def __len__(self) -> int:
        return len(self._submissions)

    @property
    def everywhere(self) -> int:
        return self._tally.total

    @property
    def submissions(self) -> set[Submission]:
        return set(self._submissions.values())

    def add(self, ids: Sequence[int], submission: Submission) -> None:
        self._submissions.update(dict.fromkeys(ids, submission))
        self._tally.own = len(self)

    def get(self, id: int) -> Submission | None:
        return self._submissions.get(id)

    def end(self, id: int) -> None:
        """The engine has ended a choice."""
        self.forget(id)
        self._rate.count_end()

    def forget(self, id: int) -> bool:
        """Whether it was open."""
        known = self._submissions.pop(id, None) is not None
        self._tally.own = len(self)
        return known

    def clear(self) -> None:
        self._submissions.clear()
        self._tally.own = 0

    def expected_wait_s(self, slots: int) -> float:
        """How long a new choice would wait for those before it; 0 where nothing tells."""
        ahead = self.everywhere - slots
        if ahead <= 0:
            return 0.0
        # Only ends of own choices are seen, so only the own share of those ahead is counted.
        return self._rate.seconds_for(ahead * len(self) // self.everywhere) or 0.0

    def retry_after_s(self) -> int:
        """When half of what is open has ended; spread, so that not all come back at once."""
        wait_s = self._rate.seconds_for(len(self) // 2) or UNKNOWN_WAIT_S
        return round(min(max(wait_s * random.uniform(1.0, 1.5), 1.0), RETRY_AFTER_MAX_S))
