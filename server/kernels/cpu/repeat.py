"""Steps of a few rows as programs, one for each number of rows."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from server.kernels.attention import KVCache
from server.kernels.cpu.attention import CpuBatch
from server.kernels.cpu.program import Memory, Program, Unrepeatable

MOST_ROWS = 64
"""With more rows Python's part of a step is small."""

PATIENCE = 16
"""Steps of a number of rows before one is recorded. That takes as long as some twenty repeated
steps save, and where requests come and go many a number is not seen again."""

Forward = Callable[[Tensor, KVCache, CpuBatch, Tensor | None], Tensor]

log = logging.getLogger(__name__)


class RepeatedSteps:
    """The `forward` of a model, for steps over one cache.

    Args:
        longest: tokens that a context can have.
        patience: steps of a number of rows before one is recorded.
    """

    def __init__(self, forward: Forward, longest: int, patience: int = PATIENCE) -> None:
        self._forward = forward
        self._longest = longest
        self._patience = patience
        self._seen: Counter[int] = Counter()
        self._memory = Memory()
        self._steps: dict[int, _Step] = {}
        self._most_rows = MOST_ROWS

    def __call__(
        self, hidden: Tensor, cache: KVCache, batch: CpuBatch, wanted: Tensor | None = None
    ) -> Tensor:
        """The result is valid until the next call."""
        rows = len(hidden)
        if rows > self._most_rows or rows != len(batch.tables):
            return self._forward(hidden, cache, batch, wanted)
        if rows not in self._steps:
            self._seen[rows] += 1
            if self._seen[rows] <= self._patience:
                return self._forward(hidden, cache, batch, wanted)
            try:
                self._steps[rows] = self._record(hidden, cache, batch)
            except Unrepeatable as fault:
                log.info("steps of a few rows go kernel by kernel: %s", fault)
                self._most_rows = 0
                return self._forward(hidden, cache, batch, wanted)
        states = self._steps[rows].run(hidden, batch)
        return states if wanted is None else states[wanted]

    def _record(self, hidden: Tensor, cache: KVCache, batch: CpuBatch) -> _Step:
        hidden, batch = hidden.clone(), batch.copy(self._longest)

        def work() -> Tensor:
            return self._forward(hidden, cache, batch, None)

        work()  # what is computed once is computed outside the program
        return _Step(hidden, batch, Program(work, self._memory))


@dataclass(frozen=True, slots=True)
class _Step:
    """A program and what it reads."""

    hidden: Tensor
    batch: CpuBatch
    program: Program

    def run(self, hidden: Tensor, batch: CpuBatch) -> Tensor:
        self.hidden.copy_(hidden)
        self.batch.take(batch)
        self.program.run()
        return self.program.result
