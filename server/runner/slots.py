"""Slot-indexed state: what a runner remembers between plans.

Token and block tables live on the device, so a steady decode step moves nothing to it. Lengths are
known on the host without asking the device: they follow from the plans alone.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from server.engine.plan import Grow, Install, Row, RunnerLimits, StepPlan
from server.messages import SamplingParams
from server.runner.shaping import SamplingRow


@dataclass(slots=True)
class Slot:
    """One request, as far as the host needs to know it."""

    length: int
    """Tokens that exist, sampled ones included."""
    prompt_length: int
    computed: int
    """Positions with keys and values."""
    num_blocks: int
    sampling: SamplingParams
    stop_ids: tuple[int, ...]
    prompt_logprobs: int | None


class Slots:
    """Mirrors what the engine decided, plan by plan."""

    def __init__(self, limits: RunnerLimits, device: torch.device) -> None:
        max_blocks = -(-limits.max_model_len // limits.kv_block_size)
        # One slot more than requests have, for rows that only fill up a graph; its block is the one
        # behind those that the engine deals out. One token more than a context: the last one is
        # sampled but never computed.
        rows, tokens = limits.slots + 1, limits.max_model_len + 1
        self.tokens = torch.zeros(rows, tokens, dtype=torch.int64, device=device)
        self.block_tables = torch.zeros(rows, max_blocks, dtype=torch.int64, device=device)
        self.block_tables[-1] = limits.kv_blocks
        self._slots: dict[int, Slot] = {}
        self._last_rows: deque[list[Row]] = deque([[]] * limits.stages, maxlen=limits.stages)

    def __getitem__(self, slot: int) -> Slot:
        return self._slots[slot]

    def rows_of(self, plan: StepPlan) -> list[Row]:
        """The rows of the next step, said or repeated."""
        if plan.rows is None:
            return [Row(row.slot, 1) for row in self._last_rows[0]]
        return plan.rows

    def apply(self, plan: StepPlan) -> list[Row]:
        """Takes over installs and block tables; returns the rows of the step."""
        for install in plan.installs:
            self._install(install)
        for grow in plan.grows:
            self._grow(grow)
        rows = self.rows_of(plan)
        self._last_rows.append(rows)
        return rows

    def _install(self, install: Install) -> None:
        tokens = torch.frombuffer(bytearray(install.tokens), dtype=torch.int32)
        self.tokens[install.slot, : len(tokens)] = tokens
        self._slots[install.slot] = Slot(
            length=len(tokens),
            prompt_length=install.prompt_length,
            computed=install.computed,
            num_blocks=0,
            sampling=install.sampling,
            stop_ids=tuple(install.stop_ids),
            prompt_logprobs=install.prompt_logprobs,
        )
        self._grow(Grow(install.slot, install.blocks))

    def _grow(self, grow: Grow) -> None:
        slot = self._slots[grow.slot]
        end = slot.num_blocks + len(grow.blocks)
        self.block_tables[grow.slot, slot.num_blocks : end] = torch.tensor(grow.blocks)
        slot.num_blocks = end

    def append(self, slots: list[int], token_ids: Tensor) -> None:
        """Adds the token that each of `slots` has sampled; the values stay on the device."""
        self.write(slots, self.advance(slots), token_ids)

    def advance(self, slots: list[int]) -> list[int]:
        """Makes `slots` one token longer, of unknown value; returns the positions of the tokens."""
        positions = [self._slots[slot].length for slot in slots]
        for slot in slots:
            self._slots[slot].length += 1
        return positions

    def write(self, slots: list[int], positions: list[int], token_ids: Tensor) -> None:
        """Gives tokens their value."""
        places = torch.tensor([slots, positions], device=token_ids.device)
        self.tokens.index_put_((places[0], places[1]), token_ids)

    def sampling_row(self, slot: int) -> SamplingRow:
        """How the next token of a slot is drawn."""
        state = self._slots[slot]
        generated = None
        if state.sampling.shaped:
            generated = self.tokens[slot, state.prompt_length : state.length]
        return SamplingRow(state.sampling, state.length, generated, state.stop_ids)
