"""What the engine is told about a request, whatever endpoint it came in by: how tokens are drawn,
when the answer ends, and who goes first. Ids that the model does not know are refused here.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from server.api.sampling import OPENAI_DEFAULTS, choice_params
from server.api.schemas import GenerationRequest
from server.errors import ApiError, invalid
from server.frontend.prompt import Prompt
from server.frontend.tokenizer import Tokenizer
from server.messages import Grammar, ImageRef, SamplingParams, Submit
from server.model.spec import ModelSpec
from server.settings import Settings

TIER_PRIORITIES = {"flex": 100, "priority": -100, "fast": -100, "scale": -100}
"""Lower goes first; every other tier is 0."""

BAD_WORD_CHARS_MAX = 256

LISTED_IDS_MAX = 2**20
"""Token ids that all choices of a request list together, those of bad words included: the engine
keeps them for each choice. Sixteen choices may each allow the whole vocabulary."""


@dataclass(frozen=True, slots=True)
class TokenLimits:
    """What a request says about single tokens, the same for all of its choices."""

    logit_bias: dict[int, float]
    allowed_token_ids: list[int] | None
    bad_words: list[list[int]]

    def counts(self) -> dict[str, int]:
        """How many ids each field lists."""
        return {
            "allowed_token_ids": len(self.allowed_token_ids or ()),
            "logit_bias": len(self.logit_bias),
            "bad_words": sum(map(len, self.bad_words)),
        }


class EngineRequests:
    """Writes `Submit` messages for one checkpoint; safe to use from several threads."""

    def __init__(self, settings: Settings, spec: ModelSpec, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = spec.text.vocab_size
        from_checkpoint = settings.generation_defaults == "model"
        self._defaults = spec.generation if from_checkpoint else OPENAI_DEFAULTS

    def token_limits(self, request: GenerationRequest, prompts: int = 1) -> TokenLimits:
        """What `build` needs, read once for all choices. Refuses token ids and words that cannot
        be meant, before anything is done for them.

        Args:
            prompts: that the request has; each has choices of its own.

        Raises:
            ApiError: 400 that names the entry, or that all choices together list too many ids.
        """
        self.check_ids(request.stop_token_ids or [], "stop_token_ids")
        allowed = request.allowed_token_ids
        self.check_ids(allowed or [], "allowed_token_ids")
        limits = TokenLimits(
            self._biases(request),
            None if allowed is None else list(dict.fromkeys(allowed)),
            self._bad_words(request),
        )
        _check_listed(limits.counts(), prompts * (request.n or 1))
        self._check_allowed(request, limits)
        return limits

    def _check_allowed(self, request: GenerationRequest, limits: TokenLimits) -> None:
        """Raises:
        ApiError: 400; of the tokens that are allowed none may come first.
        """
        if limits.allowed_token_ids is None:
            return
        banned = {word[0] for word in limits.bad_words if len(word) == 1}
        if request.min_tokens:
            banned.update(self._stop_ids(request))
        if banned.issuperset(limits.allowed_token_ids):
            raise invalid(
                "Invalid 'allowed_token_ids': expected at least one token that 'bad_words' does "
                "not ban and 'min_tokens' does not hold back.",
                param="allowed_token_ids",
            )

    def check_ids(self, token_ids: Sequence[int], param: str) -> None:
        """Raises:
        ApiError: 400; the model has no embedding for one of them.
        """
        for index, token_id in enumerate(token_ids):
            if not 0 <= token_id < self._vocab_size:
                raise self._no_such_id(param, f"{param}[{index}]")

    def build(
        self,
        request: GenerationRequest,
        limits: TokenLimits,
        prompt: Prompt,
        digests: Sequence[bytes],
        max_tokens: int,
        *,
        grammar: Grammar | None = None,
    ) -> list[Submit]:
        """One message per choice.

        Args:
            limits: what `token_limits` read of the request.
            digests: of the prompt's pictures, in order.
            max_tokens: longest answer; at least 1, already cut to the room in the context.

        Raises:
            ApiError: 400; the answer would have to be longer than it may.
        """
        if (request.min_tokens or 0) > max_tokens:
            raise invalid(
                f"Invalid 'min_tokens': the answer can have {max_tokens} tokens at most.",
                param="min_tokens",
                code="integer_above_max_value",
            )
        shared = Submit(
            id=0,
            prompt=struct.pack(f"<{len(prompt.token_ids)}i", *prompt.token_ids),
            images=[
                ImageRef(digest, offset, length)
                for digest, (offset, length) in zip(digests, prompt.images, strict=True)
            ],
            sampling=SamplingParams(),
            max_tokens=max_tokens,
            stop_ids=self._stop_ids(request),
            cache_salt=(request.cache_salt or "").encode(),
            grammar=grammar,
            prompt_logprobs=request.prompt_logprobs,
            priority=priority_of(request),
        )
        return [
            msgspec.structs.replace(
                shared,
                sampling=msgspec.structs.replace(
                    sampling,
                    logit_bias=limits.logit_bias,
                    allowed_token_ids=limits.allowed_token_ids,
                    bad_words=limits.bad_words,
                ),
            )
            for sampling in choice_params(request, self._defaults)
        ]

    def _stop_ids(self, request: GenerationRequest) -> list[int]:
        own = request.stop_token_ids or []
        return own if request.ignore_eos else [*self._tokenizer.stop_ids, *own]

    def _biases(self, request: GenerationRequest) -> dict[int, float]:
        biases: dict[int, float] = {}
        for name, bias in (request.logit_bias or {}).items():
            if not (len(name) < 10 and name.isascii() and name.isdecimal()) or (
                int(name) >= self._vocab_size
            ):
                raise self._no_such_id("logit_bias", "logit_bias")
            biases[int(name)] = bias
        return biases

    def _bad_words(self, request: GenerationRequest) -> list[list[int]]:
        """Each word as tokens at the start of a text and behind a space."""
        words: dict[tuple[int, ...], None] = {}
        for index, word in enumerate(request.bad_words or []):
            bare = word.strip(" ")
            if not 0 < len(bare) <= BAD_WORD_CHARS_MAX:
                raise invalid(
                    f"Invalid 'bad_words': each must have 1 to {BAD_WORD_CHARS_MAX} characters "
                    "beside spaces.",
                    param=f"bad_words[{index}]",
                )
            for spelling in (bare, f" {bare}"):
                words[tuple(self._tokenizer.encode_text(spelling))] = None
        return list(map(list, words))

    def _no_such_id(self, what: str, param: str) -> ApiError:
        return invalid(
            f"Invalid '{what}': expected ids from 0 to {self._vocab_size - 1}.", param=param
        )


def _check_listed(counts: Mapping[str, int], choices: int) -> None:
    """Raises:
    ApiError: 400; all choices together list more ids than this server keeps.
    """
    listed = sum(counts.values())
    if choices * listed > LISTED_IDS_MAX:
        name = max(counts, key=counts.__getitem__)
        raise invalid(
            f"Invalid '{name}': all choices together may list {LISTED_IDS_MAX} token ids in "
            f"{', '.join(counts)}, but got {choices} choices of {listed} ids. Send fewer ids, "
            "prompts or choices.",
            param=name,
            code="array_above_max_length",
        )


def isolated(submit: Submit, tenant: bytes) -> Submit:
    """The same request, sharing no cached prompt and no cached picture with other tenants."""
    digest = hashlib.blake2b(tenant, digest_size=16).digest()
    images = [
        msgspec.structs.replace(
            image, digest=hashlib.blake2b(image.digest, digest_size=16, key=digest).digest()
        )
        for image in submit.images
    ]
    return msgspec.structs.replace(submit, images=images, cache_salt=digest + submit.cache_salt)


def priority_of(request: GenerationRequest) -> int:
    """Place in the engine's queue; lower goes first."""
    if request.priority is not None:
        return request.priority
    return TIER_PRIORITIES.get(request.service_tier or "", 0)


def tier_of(request: GenerationRequest) -> str:
    """The service tier that the answer names."""
    tier = request.service_tier
    return "default" if tier is None or tier == "auto" else tier
