"""The borders of a stage in the layer pipeline: hidden states come in and go on, and drawn tokens
return from the last stage to the first, which embeds them.

All stages execute the same plans in the same order, so nobody says what is sent: a plan tells how
many tokens it has and which slots draw. The first stage fetches drawn tokens as late as it can,
because waiting for them is waiting for all other stages: before plan n those of plans up to n - P,
and of later plans only what plan n reads or is about to replace.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from server.distributed.groups import Groups, Link
from server.engine.plan import RunnerLimits, StepPlan
from server.model.internvl import InternVLChat
from server.runner.inputs import StepLayout
from server.runner.slots import Slots


class Stage(Protocol):
    def collect_tokens(self, plan: StepPlan) -> None:
        """Fetches what other stages have drawn, before `plan` is applied."""

    def receive(self, tokens: int) -> Tensor | None:
        """Hidden states [tokens, hidden] of the stage before; None in the first one."""

    def pass_on(self, step: int, hidden: Tensor, layout: StepLayout) -> None:
        """Sends hidden states on; tokens are drawn in the last stage."""

    def send_tokens(self, token_ids: Tensor) -> None:
        """Sends what the last stage drew to the first."""


def make_stage(groups: Groups, slots: Slots, limits: RunnerLimits, model: InternVLChat) -> Stage:
    if limits.stages == 1:
        return OnlyStage()
    return PipelineStage(groups, slots, limits.stages, model)


class OnlyStage:
    """There is nobody else."""

    def collect_tokens(self, plan: StepPlan) -> None:
        pass

    def receive(self, tokens: int) -> Tensor | None:
        return None

    def pass_on(self, step: int, hidden: Tensor, layout: StepLayout) -> None:
        raise AssertionError("an only stage has nobody to pass on to")

    def send_tokens(self, token_ids: Tensor) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Owed:
    """Tokens that a step draws in the last stage."""

    step: int
    slots: list[int]
    positions: list[int]


class PipelineStage:
    """One of several stages."""

    def __init__(self, groups: Groups, slots: Slots, stages: int, model: InternVLChat) -> None:
        self._groups = groups
        self._slots = slots
        self._stages = stages
        self._embeds = model.shard.text.embeds
        self._width = model.spec.text.hidden_size
        self._dtype = model.dtype
        self._device = slots.tokens.device
        self._owed: deque[Owed] = deque()

    def collect_tokens(self, plan: StepPlan) -> None:
        if not self._embeds:
            return
        last = max(plan.step - self._stages, self._last_step_about(plan))
        while self._owed and self._owed[0].step <= last:
            owed = self._owed.popleft()
            empty = torch.empty(len(owed.slots), dtype=torch.int64, device=self._device)
            token_ids = _link(self._groups.tokens).receive(empty)
            self._slots.write(owed.slots, owed.positions, token_ids)

    def _last_step_about(self, plan: StepPlan) -> int:
        """The last step that draws for a slot which the plan reads or installs."""
        named = {install.slot for install in plan.installs}
        named.update(row.slot for row in self._slots.rows_of(plan))
        return max((o.step for o in self._owed if not named.isdisjoint(o.slots)), default=-1)

    def receive(self, tokens: int) -> Tensor | None:
        if self._embeds:
            return None
        shape = (tokens, self._width)
        empty = torch.empty(shape, dtype=self._dtype, device=self._device)
        return _link(self._groups.previous).receive(empty)

    def pass_on(self, step: int, hidden: Tensor, layout: StepLayout) -> None:
        # A copy: a graph writes its next result to the same place.
        _link(self._groups.next).send(hidden.clone())
        if self._embeds and layout.sampling_slots:
            self._owed.append(Owed(step, layout.sampling_slots, layout.sampling_positions))

    def send_tokens(self, token_ids: Tensor) -> None:
        if len(token_ids):
            _link(self._groups.tokens).send(token_ids)


def _link(link: Link | None) -> Link:
    assert link is not None, "this stage has no such neighbour"
    return link
