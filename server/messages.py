"""What the API processes and the engine say to each other: msgspec structs over ZeroMQ.

The engine sees token ids, digests and raw pixels, never text or a picture file. Every `Submit` is
answered by deltas of which exactly one carries a finish reason; `Cancel` is idempotent and is
always forwarded, also for ids that one side has forgotten.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class FinishReason(StrEnum):
    """Why a request ended. `STOP` and `LENGTH` are OpenAI's words; the others become errors."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    ERROR = "error"


class SamplingParams(msgspec.Struct, frozen=True, array_like=True):
    """How the next token is drawn; the neutral value of each field switches it off.

    `seed` is always set: the API draws one where the client gave none, so that a preempted request
    goes on with the same noise. Penalties look at generated tokens only, as the authors' code does.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0
    logit_bias: dict[int, float] = {}
    """Added to the logits of these token ids."""
    allowed_token_ids: list[int] | None = None
    """Nothing else is ever drawn."""
    bad_words: list[list[int]] = []
    """Token sequences whose last token is never drawn after the others."""
    min_tokens: int = 0
    """Stop tokens are not drawn before so many tokens."""
    logprobs: int | None = None
    """Report the log probability of each drawn token and of so many of the likeliest."""

    @property
    def penalised(self) -> bool:
        return (
            self.presence_penalty != 0.0
            or self.frequency_penalty != 0.0
            or self.repetition_penalty != 1.0
        )

    @property
    def filtered(self) -> bool:
        """Whether unlikely tokens are ruled out before a random draw."""
        return self.top_k > 0 or self.top_p < 1.0 or self.min_p > 0.0

    @property
    def shaped(self) -> bool:
        """Whether anything changes the logits before a token is drawn."""
        return (
            self.penalised
            or bool(self.logit_bias)
            or self.allowed_token_ids is not None
            or bool(self.bad_words)
            or self.min_tokens > 0
        )


class ImageRef(msgspec.Struct, frozen=True, array_like=True):
    """A picture inside a prompt: its embeddings replace `length` positions from `offset` on.

    `digest` is over the uint8 pixels that the model will see, so equal digests mean equal
    embeddings; it takes part in the prefix-cache key.
    """

    digest: bytes
    offset: int
    length: int


class GrammarKind(StrEnum):
    """In which language a grammar is written."""

    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    LARK = "lark"


class Grammar(msgspec.Struct, frozen=True, array_like=True):
    """What the answer must match."""

    kind: GrammarKind
    text: str


class Submit(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """A request for one continuation. One raw frame of uint8 RGB pixels follows per entry of
    `images`, in order: height x width x 3 bytes."""

    id: int
    prompt: bytes
    """Token ids as little-endian int32."""
    images: list[ImageRef]
    sampling: SamplingParams
    max_tokens: int
    """At least 1; the API has already cut it to the room left in the context."""
    stop_ids: list[int]
    cache_salt: bytes = b""
    grammar: Grammar | None = None
    prompt_logprobs: int | None = None
    """Report log probabilities of the prompt's tokens too, and so many of the likeliest each."""
    priority: int = 0
    """Lower goes first."""
    tenant: bytes = b""
    """Whose request it is; tenants share what there is."""


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag=True):
    id: int


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """First message of an API process on every connection. The engine forgets whatever an earlier
    process with the same name asked for, and answers `Ready`."""


class Ready(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """What the engine can take."""

    max_model_len: int
    """Prompt and answer together, in tokens."""
    max_num_seqs: int
    kv_blocks: int
    kv_block_size: int
    step_token_budget: int
    dtype: str
    device: str
    ranks: int
    restarts: int = 0
    """Processes of the daemon that were started again before this engine was."""
    weights_load_s: float = 0.0
    quantization: str = "none"
    weights_bytes: list[int] = []
    """Of each rank, as planned."""
    kv_bytes: list[int] = []
    """Of each rank's cache."""
    activations_bytes: list[int] = []
    """Of each rank's largest step, as planned."""
    stages: int = 1
    vision_tp: int = 1
    """Ranks that share a vision tower."""


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Natural logarithms of what the model itself thought of a token, before temperature,
    penalties, biases and masks."""

    logprob: float
    top_ids: list[int]
    """The likeliest tokens, likeliest first; as many as were asked for."""
    top_logprobs: list[float]


class Delta(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """News of one request: the tokens of a step, or its end, or both. Hundreds come with each step,
    and none is part of a cycle: the garbage collector need not look at them."""

    id: int
    token_ids: list[int]
    finish: FinishReason | None = None
    cached_tokens: int = 0
    """Prompt tokens whose KV came from the prefix cache; meaningful on the first delta."""
    error: str | None = None
    logprobs: list[TokenLogprob] | None = None
    """One for each of `token_ids`, where they were asked for."""
    prompt_logprobs: list[TokenLogprob] | None = None
    """For the prompt's tokens from the second on; on the first delta with tokens."""
    queued_s: float = 0.0
    """From its arrival in the engine to its first step; on the first delta with tokens."""
    prefill_s: float = 0.0
    """From its first step to its first token; on the first delta with tokens."""


class Gauges(msgspec.Struct, frozen=True, array_like=True):
    """The engine's state after a step, for metrics."""

    requests_running: int = 0
    requests_waiting: int = 0
    kv_blocks_used: int = 0
    kv_blocks: int = 0
    image_slots_used: int = 0
    prompt_budget: int = 0
    """Prompt tokens that the next step may hold."""
    prompt_tokens_total: int = 0
    cached_tokens_total: int = 0
    generated_tokens_total: int = 0
    images_encoded_total: int = 0
    images_cached_total: int = 0
    preemptions_total: int = 0
    cancellations_total: int = 0
    steps_total: int = 0
    guessed_tokens_total: int = 0
    confirmed_tokens_total: int = 0


class StepReport(msgspec.Struct, frozen=True, array_like=True):
    """What a step was, for metrics."""

    seconds: float
    """How long it kept the device: since its launch, or since the end of the step before it."""
    tokens: int
    """Positions that it computed."""
    encode_seconds: float = 0.0
    """Spent in the vision tower; 0 where it encoded no picture."""
    rows: int = 0
    """Requests that took part."""
    pictures: int = 0
    """That it encoded."""
    guesses: int = 0
    """Of the positions."""


class Outputs(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """One message per step and API process."""

    deltas: list[Delta]
    gauges: Gauges
    step: StepReport | None = None
    """The step that this tells of; None where something else was the occasion."""


ToEngine = Submit | Cancel | Hello
ToApi = Ready | Outputs
