"""A step plan in the making: the rows and changes gathered so far and the budget that is left."""

from __future__ import annotations

from collections.abc import Sequence

from server.engine.launched import LaunchedRow
from server.engine.plan import Confirm, Encode, Grow, Install, Row, Scatter, StepPlan
from server.engine.request import Request


class Draft:
    """Filled by the scheduler request by request, then turned into a plan."""

    def __init__(self, budget_tokens: int) -> None:
        self.budget = budget_tokens
        self.installs: list[Install] = []
        self.grows: list[Grow] = []
        self.rows: list[LaunchedRow] = []
        self.slots: list[int] = []
        """Of the rows, in their order."""
        self._encodes: list[Encode] = []
        self._encoding: set[Request] = set()
        self._scatters: list[Scatter] = []
        self._rows: list[Row] = []
        self._confirms: list[Confirm] = []
        self._masked: list[int] = []

    def reserve(self, tokens: int) -> None:
        """Keeps a part of the budget for what comes later; negative gives it back."""
        self.budget -= tokens

    def can_encode(self, cost_tokens: int) -> bool:
        """Whether a picture fits the budget with a token to spare. The first picture of a step
        always does: it may cost more than a whole budget."""
        return not self._encodes or cost_tokens < self.budget

    def encode(self, request: Request, index: int, image_slot: int, cost_tokens: int) -> None:
        """Adds a picture of a request."""
        self._encodes.append(Encode(image_slot, memoryview(request.pixels[index])))
        self._encoding.add(request)
        self.budget = max(1, self.budget - cost_tokens)

    def compute(self, request: Request, count: int, guesses: Sequence[int] = ()) -> None:
        """Adds the next `count` positions of a request, and guesses of what follows them."""
        assert request.slot is not None
        self.budget -= count + len(guesses)
        request.scheduled += count
        row = LaunchedRow(
            request,
            request.scheduled,
            samples=request.scheduled == request.length,
            prompt=count > 1,
            encodes=request in self._encoding,
            guesses=guesses,
        )
        request.unknown += row.samples
        request.in_flight += 1
        self.rows.append(row)
        self.slots.append(request.slot)
        self._rows.append(Row(request.slot, count + len(guesses), list(guesses)))
        if request.confirmed:
            self._confirms.append(Confirm(request.slot, request.confirmed))
            request.confirmed = 0
        if row.masked:
            self._masked.append(request.slot)

    def scatter(
        self, request: Request, position: int, image_slot: int, first: int, count: int
    ) -> None:
        """Lets embeddings of a picture take the place of positions that `compute` has added."""
        assert request.slot is not None
        self._scatters.append(Scatter(request.slot, position, image_slot, first, count))

    def plan(self, step: int, last_slots: list[int]) -> StepPlan:
        """The finished plan; `last_slots` are the rows that need not be said again."""
        repeats = self.slots == last_slots and all(row.count == 1 for row in self._rows)
        return StepPlan(
            step,
            self._confirms,
            self.installs,
            self.grows,
            self._encodes,
            self._scatters,
            None if repeats else self._rows,
            self._masked,
        )
