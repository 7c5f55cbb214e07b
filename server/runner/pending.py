"""A step on its way: what the device thread waits for, and what the engine waits for."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch
from torch import Tensor

from server.engine.plan import PromptLogprobs, StepResult
from server.messages import TokenLogprob
from server.runner.logprobs import Logprobs
from server.runner.stopwatch import Stopwatch

Masks = Sequence[bytes | None]


@dataclass(frozen=True, slots=True)
class PromptPart:
    """Log probabilities of some of a prompt's tokens, from `position` on."""

    slot: int
    position: int
    logprobs: Logprobs
    top: int
    """How many of the likeliest tokens were asked for."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """What a step gives, on its way to the host."""

    token_ids: Tensor
    logprobs: Logprobs | None
    """Of the rows that asked for them."""
    logprob_counts: list[int | None]
    """How many of the likeliest each row asked for; empty where none did."""
    prompts: list[PromptPart]
    arrived: torch.cuda.Event | None = None
    encoding: Stopwatch | None = None
    """Of the vision tower, where it had something to do."""

    @classmethod
    def nowhere(cls) -> Sampled:
        """Of a stage that draws nothing: what a step gives comes from the last one."""
        return cls(torch.empty(0, dtype=torch.int64), None, [], [])

    def to_host(self) -> Sampled:
        """Starts the copies, which `wait` waits for; nothing to do on a CPU."""
        if self.token_ids.device.type == "cpu":
            return self
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copy = Sampled(
            _to_host(self.token_ids),
            self.logprobs and _logprobs_to_host(self.logprobs),
            self.logprob_counts,
            [
                PromptPart(p.slot, p.position, _logprobs_to_host(p.logprobs), p.top)
                for p in self.prompts
            ],
            event,
            self.encoding,
        )
        event.record()
        return copy

    def wait(self, step: int) -> StepResult:
        if self.arrived is not None:
            self.arrived.synchronize()
        prompts = [
            PromptLogprobs(p.slot, p.position, p.logprobs.listed([p.top] * len(p.logprobs.chosen)))
            for p in self.prompts
        ]
        encode_seconds = self.encoding.seconds() if self.encoding else 0.0
        return StepResult(
            step, self.token_ids.tolist(), self._listed_logprobs(), prompts, encode_seconds
        )

    def _listed_logprobs(self) -> list[TokenLogprob | None]:
        if self.logprobs is None:
            return []
        listed = iter(self.logprobs.listed([c for c in self.logprob_counts if c is not None]))
        return [None if count is None else next(listed) for count in self.logprob_counts]


@dataclass(frozen=True, slots=True)
class PendingStep:
    """See `engine.plan.Pending`."""

    step: int
    sampled: Future[Sampled]
    masks: Future[Masks] = field(default_factory=Future)

    def provide(self, masks: Masks) -> None:
        self.masks.set_result(masks)

    def result(self) -> StepResult:
        return self.sampled.result().wait(self.step)


def _to_host(values: Tensor) -> Tensor:
    return values.to("cpu", non_blocking=True)


def _logprobs_to_host(logprobs: Logprobs) -> Logprobs:
    return Logprobs(*map(_to_host, (logprobs.chosen, logprobs.top_ids, logprobs.top)))
