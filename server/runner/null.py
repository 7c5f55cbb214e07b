"""A runner without a model: it recites a text, for free or at a set pace.

What a daemon costs with it is what serving costs beside the model: HTTP, tokenising, scheduling,
the wire and the streams. It keeps the contract of `engine/plan.py`, grammars included; what
requests say about sampling has no effect, and log probabilities are made up.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from server.engine.plan import Install, PromptLogprobs, Row, RunnerLimits, StepPlan, StepResult
from server.errors import StartupError
from server.messages import Ready, SamplingParams, TokenLogprob
from server.model.spec import ModelSpec
from server.runner.memory import plan_limits
from server.settings import Settings

TEXT = (
    "Nobody looks at a picture here: there is no model behind this answer. It is the same text "
    "for everybody, said again and again, to find out what serving costs by itself.\n"
)

BLOCK_SIZE = 16
STEP_TOKEN_BUDGET = 8192
PLENTY_BYTES = 1 << 60

CERTAIN, UNLIKELY = 0.0, -100.0


@dataclass(slots=True)
class Recital:
    """A request in a slot."""

    prompt: array[int]
    """And what was generated before a preemption."""
    prompt_length: int
    length: int
    computed: int
    sampling: SamplingParams
    prompt_logprobs: int | None

    @property
    def place(self) -> int:
        """In the answer, of the next token."""
        return self.length - self.prompt_length

    @classmethod
    def of(cls, install: Install) -> Recital:
        tokens = array("i")
        tokens.frombytes(install.tokens)
        return cls(
            prompt=tokens,
            prompt_length=install.prompt_length,
            length=len(tokens),
            computed=install.computed,
            sampling=install.sampling,
            prompt_logprobs=install.prompt_logprobs,
        )


class NullStep:
    """A launched step. What it draws is settled as far as there are no masks.

    Args:
        slots: that draw a token.
        token_ids: theirs.
        due_s: when the step is over, of the monotonic clock.
    """

    def __init__(
        self, plan: StepPlan, slots: list[int], token_ids: list[int], due_s: float
    ) -> None:
        self.logprobs: list[int | None] = []
        """How many each slot wants; empty where none does."""
        self.prompt_logprobs: list[PromptLogprobs] = []
        self._plan = plan
        self._slots = slots
        self._token_ids = token_ids
        self._due_s = due_s

    def provide(self, masks: Sequence[bytes | None]) -> None:
        by_slot = dict(zip(self._plan.masked, masks, strict=True))
        for index, slot in enumerate(self._slots):
            self._token_ids[index] = allowed(self._token_ids[index], by_slot.get(slot))

    def result(self) -> StepResult:
        if (wait_s := self._due_s - time.monotonic()) > 0:
            time.sleep(wait_s)
        logprobs = [
            None if wanted is None else scored(token, wanted)
            for token, wanted in zip(self._token_ids, self.logprobs, strict=False)
        ]
        return StepResult(self._plan.step, self._token_ids, logprobs, self.prompt_logprobs)


class NullRunner:
    """A `Runner` that recites.

    Args:
        script: token ids that every answer repeats; no stop token among them.
        step_s: how long a step takes at least.
    """

    weights_load_s = 0.0

    def __init__(self, limits: RunnerLimits, script: Sequence[int], step_s: float = 0.0) -> None:
        self.limits = limits
        self._script = script
        self._step_s = step_s
        self._slots: dict[int, Recital] = {}
        self._rows: list[Row] = []
        self._due_s = 0.0

    def launch(self, plan: StepPlan) -> NullStep:
        for confirm in plan.confirms:
            self._slots[confirm.slot].length += confirm.count
            self._slots[confirm.slot].computed += confirm.count
        for install in plan.installs:
            self._slots[install.slot] = Recital.of(install)
        rows = self._rows if plan.rows is None else plan.rows
        if plan.rows is not None:
            self._rows = [Row(row.slot, 1) for row in plan.rows]
        self._due_s = max(self._due_s, time.monotonic()) + self._step_s
        slots: list[int] = []
        token_ids: list[int] = []
        step = NullStep(plan, slots, token_ids, self._due_s)
        for row in rows:
            recital = self._slots[row.slot]
            if recital.prompt_logprobs is not None:
                step.prompt_logprobs += prompt_logprobs(row.slot, recital, row.count)
            recital.computed += row.count - len(row.guesses)
            if recital.computed == recital.length:
                for ahead in range(1 + len(row.guesses)):
                    slots.append(row.slot)
                    token_ids.append(self._script[(recital.place + ahead) % len(self._script)])
                recital.length += 1
        wanted = [self._slots[slot].sampling.logprobs for slot in slots]
        if any(one is not None for one in wanted):
            step.logprobs = wanted
        return step

    def describe(self) -> Ready:
        return Ready(
            max_model_len=self.limits.max_model_len,
            max_num_seqs=self.limits.slots,
            kv_blocks=self.limits.kv_blocks,
            kv_block_size=self.limits.kv_block_size,
            step_token_budget=self.limits.step_token_budget,
            dtype="none",
            device="none",
            ranks=1,
            weights_bytes=[0],
            kv_bytes=[0],
        )

    def recover(self) -> bool:
        return False  # nothing here runs out of memory

    def close(self) -> None:
        self._slots.clear()


def null_limits(settings: Settings, spec: ModelSpec) -> RunnerLimits:
    """What a device without a model has room for: everything.

    Raises:
        StartupError: there is more than one rank.
    """
    if settings.ranks > 1:
        raise StartupError("--load-format null: there is no model to share, ask for one rank")
    budget = settings.step_token_budget or STEP_TOKEN_BUDGET
    return plan_limits(
        settings.model_copy(update={"step_token_budget": budget}),
        spec,
        block_size=BLOCK_SIZE,
        token_bytes=1,
        free_bytes=PLENTY_BYTES,
        on_cpu=True,
    )


def prompt_logprobs(slot: int, recital: Recital, count: int) -> list[PromptLogprobs]:
    """Those of the prompt's tokens that follow the next `count` positions."""
    first = recital.computed + 1
    targets = recital.prompt[first : min(first + count, recital.prompt_length)]
    wanted = recital.prompt_logprobs or 0
    entries = [scored(token, wanted) for token in targets]
    return [PromptLogprobs(slot, first, entries)] if entries else []


def scored(token: int, wanted: int) -> TokenLogprob:
    """A certain token, and others that are none.

    Args:
        wanted: how many of the likeliest to list.
    """
    others = [other for other in range(wanted) if other != token]
    ids = [token, *others][:wanted]
    return TokenLogprob(CERTAIN, ids, [CERTAIN, *[UNLIKELY] * wanted][: len(ids)])


def allowed(token: int, mask: bytes | None) -> int:
    """The token where the mask takes it, else the first that it takes."""
    if mask is None or mask[token // 8] >> token % 8 & 1:
        return token
    return next(
        8 * index + bit for index, byte in enumerate(mask) for bit in range(8) if byte >> bit & 1
    )
