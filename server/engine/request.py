"""One request inside the engine: its tokens, how far it has been computed, what it holds.

Two watermarks tell the whole state. `length` counts tokens that exist, also those a launched step
will sample (`unknown`: their values are still on the device); `scheduled` counts positions whose
keys and values launched steps have computed. Prefill, chunk, prefix hit, decode and resume after
preemption are all the same: `scheduled` has to catch up with `length`, and a step that gets there
samples one more token.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Protocol

from server.engine.plan import NOTHING, PromptLogprobs, RunnerLimits
from server.in_flight import fingerprint
from server.messages import Delta, FinishReason, ImageRef, SamplingParams, Submit, TokenLogprob

KEY_BYTES = 16

GRAMMAR_FAILED = "The answer could not follow its grammar."
NOTHING_LEFT = (
    "No token could come next: what the request allows, bans and holds back leaves none to draw."
)


class Matcher(Protocol):
    """A grammar and how far the answer has come in it."""

    def mask(self) -> bytes:
        """Which tokens may come next; see `plan.Pending.provide`."""

    def accept(self, token_id: int) -> None: ...

    @property
    def failed(self) -> bool: ...

    @property
    def complete(self) -> bool:
        """Nothing but the end can follow."""


class Status(Enum):
    WAITING = auto()
    RUNNING = auto()
    FINISHED = auto()


@dataclass(slots=True, eq=False)
class Request:
    """Mutable; owned by the scheduler."""

    peer: bytes
    id: int
    tokens: array[int]
    """Prompt and the generated tokens that are known."""
    prompt_length: int
    images: list[ImageRef]
    pixels: Sequence[memoryview | bytes]
    sampling: SamplingParams
    max_tokens: int
    stop_ids: frozenset[int]
    cache_salt: bytes
    prompt_logprobs_wanted: int | None
    matcher: Matcher | None
    """Follows the grammar of the answer, if it has one."""
    tenant: bytes
    fingerprint: bytes
    """Of the input; see `in_flight`."""
    rank: tuple[int, int]
    """Place among all requests: priority and order of arrival. Lower goes first."""

    status: Status = Status.WAITING
    unknown: int = 0
    drawn_in: int = -1
    """Step that draws the newest token."""
    scheduled: int = 0
    confirmed: int = 0
    """Guesses that were right, and of which the runner has not heard."""
    wrong_guesses: int = 0
    """Rows in succession none of whose guesses was right."""
    guesses_from: int = 0
    """Number of tokens from which on it may guess again."""
    in_flight: int = 0
    """Launched plans with a row of this request that have not retired."""
    slot: int | None = None
    blocks: list[int] = field(default_factory=list)
    sealed: int = 0
    """Blocks, from the first on, that were offered to the prefix cache."""
    held_images: dict[int, int] = field(default_factory=dict)
    """Index into `images` to the image slot that this request references."""
    admitted: bool = False
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list)
    """Of the prompt's tokens from the second on, as far as they are known."""
    cached_tokens: int = 0
    """Prompt tokens that the first admission found in the prefix cache."""
    arrived_s: float = field(default_factory=time.monotonic)
    """When the scheduler got it. Times are reported; nothing is decided by them."""
    entered_s: float = 0.0
    """When it was admitted first."""
    _keys: list[bytes] = field(default_factory=list)

    @classmethod
    def from_submit(
        cls,
        peer: bytes,
        submit: Submit,
        pixels: Sequence[memoryview | bytes],
        matcher: Matcher | None = None,
        arrival: int = 0,
    ) -> Request:
        """
        Args:
            arrival: how many came before it.
        """
        tokens = array("i")
        if len(submit.prompt) % tokens.itemsize == 0:  # otherwise it is no prompt; see `fault`
            tokens.frombytes(submit.prompt)
        return cls(
            peer=peer,
            id=submit.id,
            tokens=tokens,
            prompt_length=len(tokens),
            images=submit.images,
            pixels=pixels,
            sampling=submit.sampling,
            max_tokens=submit.max_tokens,
            stop_ids=frozenset(submit.stop_ids),
            cache_salt=submit.cache_salt,
            prompt_logprobs_wanted=submit.prompt_logprobs,
            matcher=matcher,
            tenant=submit.tenant,
            fingerprint=fingerprint(submit),
            rank=(submit.priority, arrival),
        )

    def fault(self, limits: RunnerLimits) -> str | None:
        """Why this request could never run. The API has checked all of it; the engine must survive
        an API that has not."""
        if self.prompt_length < 1 or self.max_tokens < 1:
            return "a request needs a prompt and room for an answer"
        if self.prompt_length + self.max_tokens > limits.max_model_len:
            return f"prompt and answer are longer than {limits.max_model_len} tokens"
        named = (
            *self.tokens,
            *self.stop_ids,
            *self.sampling.logit_bias,
            *(self.sampling.allowed_token_ids or ()),
            *itertools.chain(*self.sampling.bad_words),
        )
        if min(named) < 0 or max(named) >= limits.vocab_size:
            return "a token id is outside the vocabulary"
        return self._sampling_fault(limits) or self._image_fault(limits)

    def _sampling_fault(self, limits: RunnerLimits) -> str | None:
        if self.sampling.allowed_token_ids == [] or not all(self.sampling.bad_words):
            return "a list of tokens is empty"
        wanted = (self.sampling.logprobs or 0, self.prompt_logprobs_wanted or 0)
        if min(wanted) < 0 or max(wanted) > limits.vocab_size:
            return "more log probabilities are wanted than there are tokens"
        return None

    def _image_fault(self, limits: RunnerLimits) -> str | None:
        if len(self.images) != len(self.pixels):
            return "pictures and their places differ in number"
        end = 0
        for image, pixels in zip(self.images, self.pixels, strict=True):
            if image.offset < end or image.length != limits.tokens_per_image:
                return "places of pictures overlap or have a wrong length"
            if len(pixels) != limits.image_bytes:
                return "a picture has the wrong size"
            end = image.offset + image.length
        return "a picture lies outside the prompt" if end > self.prompt_length else None

    def _waits(self) -> tuple[float, float]:
        """Seconds that a request with a first token was in the queue, and then in its prompt."""
        return self.entered_s - self.arrived_s, time.monotonic() - self.entered_s

    def take(self, drawn: Iterable[tuple[int, TokenLogprob | None]]) -> list[Delta]:
        """Appends tokens until one ends the request; returns the news of each."""
        deltas: list[Delta] = []
        for token, logprob in drawn:
            if token == NOTHING:
                deltas.append(Delta(self.id, [], FinishReason.ERROR, error=NOTHING_LEFT))
                break
            self.tokens.append(token)
            deltas.append(self.delta(token, logprob, self.finish_reason(token)))
            if deltas[-1].finish is not None:
                break
        return deltas

    def finish_reason(self, token: int) -> FinishReason | None:
        """Why the request ends with the token that was appended last, if it does."""
        if token in self.stop_ids:
            return FinishReason.STOP
        if self.matcher is not None:
            self.matcher.accept(token)
            if self.matcher.failed:
                return FinishReason.ERROR
            if self.matcher.complete:
                return FinishReason.STOP
        if len(self.tokens) - self.prompt_length == self.max_tokens:
            return FinishReason.LENGTH
        return None

    def delta(self, token: int, logprob: TokenLogprob | None, finish: FinishReason | None) -> Delta:
        """The news of a token that was appended last."""
        first = len(self.tokens) == self.prompt_length + 1
        wants_prompt = self.prompt_logprobs_wanted is not None
        queued_s, prefill_s = self._waits() if first else (0.0, 0.0)
        return Delta(
            self.id,
            [token],
            finish,
            cached_tokens=self.cached_tokens,
            error=GRAMMAR_FAILED if finish is FinishReason.ERROR else None,
            logprobs=None if logprob is None else [logprob],
            prompt_logprobs=self.prompt_logprobs if first and wants_prompt else None,
            queued_s=queued_s,
            prefill_s=prefill_s,
        )

    def forget_launched(self) -> None:
        """What was launched does not count: its tokens will never be known."""
        self.in_flight = self.unknown = 0
        self.drawn_in = -1

    @property
    def priority(self) -> int:
        return self.rank[0]

    @property
    def length(self) -> int:
        return len(self.tokens) + self.unknown

    @property
    def remaining(self) -> int:
        """Positions that the next step can compute for this request; none once the last token
        that it may generate is on its way."""
        length = len(self.tokens) + self.unknown
        if length - self.prompt_length >= self.max_tokens:
            return 0
        return length - self.scheduled

    def prefix_keys(self, block_size: int) -> Iterator[bytes]:
        """Prefix-cache keys of the full blocks of known tokens, first block first.

        A key chains the salt, every token up to the end of its block and the digest and place of
        every picture among them: all that keys and values depend on.
        """
        index = 0
        while (index + 1) * block_size <= len(self.tokens):
            if index == len(self._keys):
                self._keys.append(self._key(index, block_size))
            yield self._keys[index]
            index += 1

    def _key(self, index: int, block_size: int) -> bytes:
        start, end = index * block_size, (index + 1) * block_size
        parent = self._keys[index - 1] if index else b""
        key = hashlib.blake2b(parent, digest_size=KEY_BYTES, salt=b"kv-prefix")
        if not index:
            key.update(hashlib.blake2b(self.cache_salt, digest_size=KEY_BYTES).digest())
        key.update(self.tokens[start:end].tobytes())
        for image in self.images:
            if image.offset < end and image.offset + image.length > start:
                key.update((image.offset - start).to_bytes(4, "little", signed=True))
                key.update(image.digest)
        return key.digest()


def insert_by_rank(requests: list[Request], request: Request) -> None:
    """Keeps a list of requests in the order of their ranks."""
    bisect.insort(requests, request, key=lambda request: request.rank)


def take_prompt_logprobs(requests: Sequence[Request], part: PromptLogprobs) -> None:
    """Gives a request what is new of it: one that was preempted reports the same positions again.

    Args:
        requests: of the step that reports.
    """
    request = next(request for request in requests if request.slot == part.slot)
    known = len(request.prompt_logprobs) + 1
    request.prompt_logprobs += part.entries[known - part.position :]
