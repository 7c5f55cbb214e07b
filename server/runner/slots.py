"""Slot-indexed state: what a runner remembers between plans.

Token and block tables live on the device, so a steady decode step moves nothing to it. Lengths are
known on the host without asking the device: they follow from the plans alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from server.engine.plan import Grow, Install, Row, RunnerLimits, StepPlan
from server.messages import SamplingParams
from server.runner.shaping import SamplingRow, TokenRules


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
    rules: TokenRules | None
    prompt_logprobs: int | None

    @property
    def reports_prompt(self) -> bool:
        """Whether log probabilities are wanted of what follows the next position: of the prompt's
        tokens alone."""
        return self.prompt_logprobs is not None and self.computed + 1 < self.prompt_length


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
        self._vocab_size = limits.vocab_size
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
        for confirm in plan.confirms:
            self._slots[confirm.slot].length += confirm.count
            self._slots[confirm.slot].computed += confirm.count
        for install in plan.installs:
            self._install(install)
        for grow in plan.grows:
            self._grow(grow)
        rows = self.rows_of(plan)
        for row in rows:
            if row.guesses:
                self._guess(row)
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
            rules=TokenRules.of(
                install.sampling, install.stop_ids, self._vocab_size, self.tokens.device
            ),
            prompt_logprobs=install.prompt_logprobs,
        )
        self._grow(Grow(install.slot, install.blocks))

    def _grow(self, grow: Grow) -> None:
        slot = self._slots[grow.slot]
        end = slot.num_blocks + len(grow.blocks)
        self.block_tables[grow.slot, slot.num_blocks : end] = torch.tensor(grow.blocks)
        slot.num_blocks = end

    def _guess(self, row: Row) -> None:
        """Puts guesses where tokens will be; what is drawn takes their places."""
        length = self._slots[row.slot].length
        self.tokens[row.slot, length : length + len(row.guesses)] = torch.tensor(row.guesses)

    def advance(self, rows: Sequence[Row]) -> None:
        """Counts what a step has computed: a slot that reached its end is one token longer, of
        unknown value. Guesses do not count before a plan confirms them."""
        for row in rows:
            slot = self._slots[row.slot]
            slot.computed += row.count - len(row.guesses)
            if slot.computed == slot.length:
                slot.length += 1

    def write(self, slots: list[int], positions: list[int], token_ids: Tensor) -> None:
        """Gives tokens their value, which stays on the device. For `NOTHING` any will do, as long
        as it can be looked up: the request ends."""
        places = torch.tensor([slots, positions], device=token_ids.device)
        self.tokens.index_put_((places[0], places[1]), token_ids.clamp(min=0))

    def sampling_row(self, slot: int, position: int) -> SamplingRow:
        """How the token at a position of a slot is drawn."""
        state = self._slots[slot]
        generated = None
        if state.sampling.shaped:
            generated = self.tokens[slot, state.prompt_length : position]
        return SamplingRow(state.sampling, position, generated, state.rules)
