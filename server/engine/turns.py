"""Whose turn it is to decode: how requests share the steps of a layer pipeline.

A request that draws a token in step n can be embedded again when the token is back at the first
stage, P stages later. So requests that decode take turns: P groups of about equal size, each of
them in every P-th step, and all stages are busy. A request whose tokens are all known waits for
nothing and joins the next group with room. Prompts take no turns: their chunks may be in
consecutive steps. With one stage everybody decodes in every step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from server.engine.draft import Draft
from server.engine.request import Request


class Turns:
    """The turns of a pipeline of `stages` stages."""

    def __init__(self, stages: int) -> None:
        self._stages = stages
        self._last_slots: deque[list[int]] = deque([[]] * stages, maxlen=stages)

    def of(self, step: int, decoding: Sequence[Request]) -> list[Request]:
        """Requests that decode in `step`, of all that could if their tokens were there. Those that
        have waited longest come first."""
        if self._stages == 1:
            return list(decoding)
        ready = [r for r in decoding if not r.unknown or r.drawn_in <= step - self._stages]
        ready.sort(key=lambda request: request.drawn_in)
        away = {r.drawn_in for r in decoding if r.unknown and r.drawn_in > step - self._stages}
        # An even part of whoever is here for each step until the next group is back.
        share = -(-len(ready) // (self._stages - len(away)))
        return ready[: min(share, -(-len(decoding) // self._stages))]

    @property
    def last_slots(self) -> list[int]:
        """Slots of the rows that the next plan need not say again."""
        return self._last_slots[0]

    def took(self, step: int, draft: Draft) -> None:
        """Notes the rows of a plan."""
        self._last_slots.append(draft.slots)
        for row in draft.rows:
            if row.samples:
                row.request.drawn_in = step
