"""What the engine is told about a request, whatever endpoint it came in by: how tokens are drawn,
when the answer ends, and who goes first. Ids that the model does not know are refused here.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

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


class EngineRequests:
    """Writes `Submit` messages for one checkpoint; safe to use from several threads."""

    def __init__(self, settings: Settings, spec: ModelSpec, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = spec.text.vocab_size
        from_checkpoint = settings.generation_defaults == "model"
        self._defaults = spec.generation if from_checkpoint else OPENAI_DEFAULTS

    def check(self, request: GenerationRequest) -> None:
        """Refuses token ids and words that cannot be meant, before anything is done for them.

        Raises:
            ApiError: 400 that names the entry.
        """
        self.check_ids(request.stop_token_ids or [], "stop_token_ids")
        self.check_ids(request.allowed_token_ids or [], "allowed_token_ids")
        self._biases(request)
        self._bad_words(request)

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
        prompt: Prompt,
        digests: Sequence[bytes],
        max_tokens: int,
        grammar: Grammar | None = None,
    ) -> list[Submit]:
        """One message per choice of a request that has passed `check`.

        Args:
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
            msgspec.structs.replace(shared, sampling=self._with_token_limits(request, sampling))
            for sampling in choice_params(request, self._defaults)
        ]

    def _with_token_limits(
        self, request: GenerationRequest, sampling: SamplingParams
    ) -> SamplingParams:
        return msgspec.structs.replace(
            sampling,
            logit_bias=self._biases(request),
            allowed_token_ids=request.allowed_token_ids,
            bad_words=self._bad_words(request),
        )

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
        words: list[list[int]] = []
        for index, word in enumerate(request.bad_words or []):
            bare = word.strip(" ")
            if not 0 < len(bare) <= BAD_WORD_CHARS_MAX:
                raise invalid(
                    f"Invalid 'bad_words': each must have 1 to {BAD_WORD_CHARS_MAX} characters "
                    "beside spaces.",
                    param=f"bad_words[{index}]",
                )
            for spelling in (bare, f" {bare}"):
                ids = self._tokenizer.encode_text(spelling)
                if ids not in words:
                    words.append(ids)
        return words

    def _no_such_id(self, what: str, param: str) -> ApiError:
        return invalid(
            f"Invalid '{what}': expected ids from 0 to {self._vocab_size - 1}.", param=param
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
