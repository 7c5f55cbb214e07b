"""The step plan: what the engine decides and the runner executes, as differences.

A runner keeps, per slot, the token table, the block table, `length` (known and sampled tokens) and
`computed` (positions with KV). A plan tells what changes; a steady decode step carries no rows at
all, because they are the rows of the step before, each one token on. Every rank applies the same
plans in the same order, so equal plans mean equal state.

In a layer pipeline each stage executes every plan for its own layers, one after another, so that P
stages work on P plans at a time. A request takes part in the next plan only when that does not wait
for its token: see `engine/turns.py`.

Contract of a runner:
- plans are executed in the order of launch, and in each layer the keys and values of all rows are
  written before any row attends; a row may therefore read blocks that another row of the same plan
  writes, which is what lets equal prompts that arrive together be computed once;
- a row whose chunk reaches `length` samples one token, which becomes position `length`; it reports
  `NOTHING` where none may be drawn, and stands still from there on;
- a row with guesses samples one more after each guess, as if it were a token of the slot; of these
  only those stay that a later plan confirms, before the slot's next row;
- tokens sampled by step n may be read by step n+P, P being the number of stages, before the engine
  has seen them;
- an image slot is written by the encodes of a plan before its rows read it;
- after a step that ran out of memory nothing that was launched counts, until `recover`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from server.messages import SamplingParams, TokenLogprob

NOTHING = -1
"""In place of a token where biases, bans and masks leave none that could be drawn."""


class Install(msgspec.Struct, frozen=True, array_like=True):
    """A request takes a slot. Blocks in `blocks` before `computed` hold KV of a cached prefix."""

    slot: int
    tokens: bytes
    """Prompt and whatever was generated before a preemption, little-endian int32."""
    prompt_length: int
    computed: int
    blocks: list[int]
    sampling: SamplingParams
    stop_ids: list[int] = []
    """What `sampling.min_tokens` holds back."""
    prompt_logprobs: int | None = None
    """Report the prompt's log probabilities, with so many of the likeliest tokens each."""


class Grow(msgspec.Struct, frozen=True, array_like=True):
    """Blocks appended to the block table of a slot."""

    slot: int
    blocks: list[int]


class Encode(msgspec.Struct, frozen=True, array_like=True):
    """A picture to run through the vision tower; its embeddings go to an image slot."""

    image_slot: int
    pixels: memoryview
    """uint8 RGB, height x width x 3, as the model sees it."""


class Scatter(msgspec.Struct, frozen=True, array_like=True):
    """`count` embeddings of an image slot, from `first` on, replace the token embeddings of a
    slot's positions from `position` on; all of them lie in the slot's chunk of this step."""

    slot: int
    position: int
    image_slot: int
    first: int
    count: int


class Row(msgspec.Struct, frozen=True, array_like=True):
    """The next `count` positions of a slot, those of its guesses included."""

    slot: int
    count: int
    guesses: list[int] = []
    """Tokens that may follow the slot's newest one, which is the row's first position."""


class Confirm(msgspec.Struct, frozen=True, array_like=True):
    """Guesses of the slot's last row, the first `count` of them, were right: they are tokens of the
    slot, their positions are computed, and what was drawn after the last is its newest token."""

    slot: int
    count: int


class StepPlan(msgspec.Struct, frozen=True, array_like=True):
    """One step. Applied in the order of the fields."""

    step: int
    """Consecutive; a runner that sees a gap must not go on."""
    confirms: list[Confirm] = []
    installs: list[Install] = []
    grows: list[Grow] = []
    encodes: list[Encode] = []
    scatters: list[Scatter] = []
    rows: list[Row] | None = None
    """None: the rows of the plan before, each with a count of 1. In a pipeline of P stages that is
    the plan P before, whose tokens come back in time for this one."""
    masked: list[int] = []
    """Slots that draw under a mask; the masks come by `Pending.provide`, beside the computation."""


class PromptLogprobs(msgspec.Struct, frozen=True, array_like=True):
    """Log probabilities of the prompt's tokens at `position` and after it."""

    slot: int
    position: int
    entries: list[TokenLogprob]


class StepResult(msgspec.Struct, frozen=True, array_like=True):
    """Tokens of the rows that sampled, in the order of the rows; of a row with guesses one more for
    each guess."""

    step: int
    token_ids: list[int]
    logprobs: list[TokenLogprob | None] = []
    """Beside `token_ids`; empty where no row asked for them."""
    prompt_logprobs: list[PromptLogprobs] = []
    encode_seconds: float = 0.0
    """Spent in the vision tower."""


class OutOfMemoryError(Exception):
    """A step did not fit into the memory of the device.

    Args:
        encoding: it was a step's pictures, in the vision tower.
    """

    def __init__(self, *, encoding: bool) -> None:
        super().__init__("a step ran out of memory")
        self.encoding = encoding


class Pending(Protocol):
    """A launched step."""

    def provide(self, masks: Sequence[bytes | None]) -> None:
        """Gives the masks of the plan's `masked` slots, in their order, once all earlier tokens are
        known: bit i, little-endian, says whether token i may be drawn; None allows all. A step
        with masked slots does not end before."""

    def result(self) -> StepResult:
        """Waits until the step is done. Raises what the step raised.

        Raises:
            OutOfMemoryError: it did not fit; whatever was launched behind it does nothing either.
        """


class RunnerLimits(msgspec.Struct, frozen=True):
    """What the runner has room for; fixed once the weights are loaded."""

    slots: int
    kv_blocks: int
    kv_block_size: int
    image_slots: int
    image_cost_tokens: int
    """What one picture costs in the vision tower, in language-model tokens."""
    step_token_budget: int
    max_model_len: int
    vocab_size: int
    tokens_per_image: int
    image_bytes: int
    """Size of one picture's pixels."""
    stages: int = 1
    """Of the layer pipeline: as many steps can be computed at a time."""


class Runner(Protocol):
    """Executes plans. Nothing in here decides anything."""

    @property
    def limits(self) -> RunnerLimits: ...

    def launch(self, plan: StepPlan) -> Pending:
        """Starts a step and returns without waiting for the device."""

    def recover(self) -> bool:
        """After an `OutOfMemoryError`: gets ready for plans that install everything anew. False
        where that cannot be done: then the process must end."""

    def close(self) -> None:
        """Waits for what was launched and frees the device."""
