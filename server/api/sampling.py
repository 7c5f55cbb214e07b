"""How a request wants its tokens drawn, with the operator's defaults for what it leaves out."""

from __future__ import annotations

import secrets
from typing import TypeVar

import msgspec

from server.api.schemas import GenerationRequest
from server.messages import SamplingParams
from server.model.spec import GenerationSpec

Number = TypeVar("Number", int, float)

SEEDS = 2**63

OPENAI_DEFAULTS = GenerationSpec(temperature=1.0, top_p=1.0, top_k=0, repetition_penalty=1.0)
"""What OpenAI's documentation says about parameters that are left out."""


def choice_params(request: GenerationRequest, defaults: GenerationSpec) -> list[SamplingParams]:
    """Sampling parameters of each choice.

    A seed that the client gave makes choice i use seed + i, so each choice can be asked for again
    alone; without one every choice draws its own.
    """
    shared = SamplingParams(
        temperature=_given(request.temperature, defaults.temperature),
        top_k=max(0, _given(request.top_k, defaults.top_k)),
        top_p=_given(request.top_p, defaults.top_p),
        min_p=_given(request.min_p, 0.0),
        presence_penalty=_given(request.presence_penalty, 0.0),
        frequency_penalty=_given(request.frequency_penalty, 0.0),
        repetition_penalty=_given(request.repetition_penalty, defaults.repetition_penalty),
        min_tokens=_given(request.min_tokens, 0),
        logprobs=request.scored_alternatives,
    )
    return [
        msgspec.structs.replace(shared, seed=_seed(request.seed, index))
        for index in range(request.n or 1)
    ]


def _seed(given: int | None, index: int) -> int:
    return secrets.randbelow(SEEDS) if given is None else (given + index) % SEEDS


def _given(value: Number | None, default: Number) -> Number:
    return default if value is None else value
