"""The rows of a step as flat arrays: which token of which slot stands where.

Everything here follows from lengths, so it is made on the host with numpy while the device still
works on the step before; a step uploads a few small index arrays and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.engine.plan import Row
from server.runner.slots import Slot

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class StepLayout:
    """T tokens of R rows, each row's tokens side by side, in the order of the rows. A row with
    guesses counts as one for each of its tokens: each of them samples, and so they go the way of
    tokens that are decoded one by one."""

    positions: Ints
    """Of each token in its sequence: [T]."""
    token_slots: Ints
    """Slot of each token: [T]."""
    row_slots: Ints
    """[R]."""
    query_lens: list[int]
    context_lens: list[int]
    first_tokens: Ints
    """Where in T each row begins: [R]."""
    sampling_tokens: Ints
    """Where in T the last tokens of rows that sample stand: [S]."""
    sampling_slots: list[int]
    sampling_positions: list[int]
    """Of the tokens that they draw."""

    @property
    def decodes(self) -> bool:
        """Whether each row is one token and samples."""
        return len(self.positions) == len(self.row_slots) == len(self.sampling_slots)

    @classmethod
    def of(cls, rows: Sequence[Row], slots: Sequence[Slot]) -> StepLayout:
        """Layout of `rows`; `slots` are theirs, one by one, before the step."""
        guesses = np.array([len(row.guesses) for row in rows])
        parts = guesses + 1
        counts = np.repeat(np.array([row.count for row in rows]) - guesses, parts)
        guessed = np.arange(len(counts)) - np.repeat(parts.cumsum() - parts, parts)
        starts = np.repeat([slot.computed for slot in slots], parts) + guessed
        lengths = np.repeat([slot.length for slot in slots], parts) + guessed
        row_slots = np.repeat([row.slot for row in rows], parts)
        ends = counts.cumsum()
        first_tokens = ends - counts
        contexts = starts + counts
        samples = contexts == lengths
        return cls(
            positions=np.arange(ends[-1]) + np.repeat(starts - first_tokens, counts),
            token_slots=np.repeat(row_slots, counts),
            row_slots=row_slots,
            query_lens=counts.tolist(),
            context_lens=contexts.tolist(),
            first_tokens=first_tokens,
            sampling_tokens=ends[samples] - 1,
            sampling_slots=row_slots[samples].tolist(),
            sampling_positions=contexts[samples].tolist(),
        )

    def token_of(self, slot: int, position: int) -> int:
        """Where in T a position of a slot stands."""
        row = int(np.flatnonzero(self.row_slots == slot)[0])
        first = int(self.first_tokens[row])
        return first + position - int(self.positions[first])
