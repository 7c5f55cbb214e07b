"""The step budget to begin with: how many tokens a step of the target time holds.

Two prefills of different length give a line; the target cuts it. A budget by measurement keeps
running streams fluent on any machine, where a fixed one freezes them on a slow one or starves a
fast one. Far beyond what was measured the line is a guess, so the budget stays near it: while the
daemon serves, `engine/step_budget.py` goes on from here.
"""

from __future__ import annotations

import time
from array import array
from dataclasses import dataclass
from typing import Protocol

from server.engine.plan import Install, Row, RunnerLimits, StepPlan
from server.messages import SamplingParams

REPEATS = 2
BEYOND = 2
"""How far a budget may go beyond the longest prefill that was measured."""


class Rehearser(Protocol):
    """A runner that has not begun to serve."""

    @property
    def limits(self) -> RunnerLimits: ...

    def rehearse(self, plan: StepPlan) -> None:
        """Executes a plan that does not count."""


@dataclass(frozen=True, slots=True)
class Prefill:
    """A measurement."""

    tokens: int
    seconds: float


def measured_budget(runner: Rehearser, target_s: float) -> int:
    """Tokens whose prefill takes about `target_s` seconds."""
    longest = min(runner.limits.max_model_len - 1, 256)
    measure(runner, longest, repeats=1)  # first runs pay for memory and code
    long, short = measure(runner, longest), measure(runner, max(1, longest // 4))
    return budget_for(target_s, short, long, smallest=runner.limits.slots + 32)


def budget_for(target_s: float, short: Prefill, long: Prefill, *, smallest: int) -> int:
    """Where the line through two prefills reaches the target, in steps of 16 tokens; at least
    `smallest`, which leaves room for a token of every slot and some of a prompt."""
    largest = BEYOND * long.tokens
    slope_s = (long.seconds - short.seconds) / max(1, long.tokens - short.tokens)
    if slope_s <= 0:  # too fast to measure
        return max(smallest, largest)
    tokens = short.tokens + (target_s - short.seconds) / slope_s
    return max(smallest, min(largest, int(tokens) // 16 * 16))


def measure(runner: Rehearser, tokens: int, *, repeats: int = REPEATS) -> Prefill:
    """The fastest of some prefills of `tokens` tokens."""
    blocks = -(-tokens // runner.limits.kv_block_size)
    install = Install(
        slot=0,
        tokens=array("i", [0] * tokens).tobytes(),
        prompt_length=tokens,
        computed=0,
        blocks=list(range(blocks)),
        sampling=SamplingParams(temperature=0.0),
    )
    plan = StepPlan(step=0, installs=[install], rows=[Row(0, tokens)])
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        runner.rehearse(plan)
        times.append(time.perf_counter() - start)
    return Prefill(tokens, min(times))
