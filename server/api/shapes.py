"""The shapes of answers, for the OpenAPI document: what a client can rely on, key by key.

Nothing is built from these; tests hold answers against them. They are closed: a key that stands
here nowhere is never sent.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

closed = with_config(ConfigDict(extra="forbid"))

ChatEnd = Literal["stop", "length", "tool_calls", "function_call"]
EVENT: dict[str, Any] = {
    "type": "object",
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
    "required": ["data"],
    "additionalProperties": False,
}
"""A server-sent event; its data is JSON, or the end mark of a stream of chunks."""

Tier = Literal["default", "flex", "priority", "fast", "scale"]


@closed
class ErrorDetail(TypedDict):
    message: str
    type: str
    param: str | None
    code: str | None


@closed
class Error(TypedDict):
    error: ErrorDetail


@closed
class PromptTokensDetails(TypedDict):
    cached_tokens: int
    image_tokens: int
    text_tokens: int
    audio_tokens: int


@closed
class CompletionTokensDetails(TypedDict):
    reasoning_tokens: int
    audio_tokens: int
    accepted_prediction_tokens: int
    rejected_prediction_tokens: int


@closed
class Usage(TypedDict):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


@closed
class LikelyToken(TypedDict):
    token: str
    logprob: float
    bytes: list[int]


@closed
class ScoredTokenShape(LikelyToken):
    top_logprobs: list[LikelyToken]


@closed
class ChatLogprobs(TypedDict):
    content: list[ScoredTokenShape]
    refusal: None


@closed
class CalledFunction(TypedDict):
    name: str
    arguments: str


@closed
class ToolCallShape(TypedDict):
    id: str
    type: Literal["function"]
    function: CalledFunction


@closed
class ChatMessageShape(TypedDict):
    role: Literal["assistant"]
    content: str | None
    refusal: None
    annotations: list[Any]
    tool_calls: NotRequired[list[ToolCallShape]]
    function_call: NotRequired[CalledFunction]


@closed
class ChatChoice(TypedDict):
    index: int
    message: ChatMessageShape
    logprobs: ChatLogprobs | None
    finish_reason: ChatEnd
    stop_reason: str | int | None
    token_ids: NotRequired[list[int]]


@closed
class PromptTokenShape(TypedDict):
    logprob: float
    rank: int | None
    decoded_token: str


@closed
class ChatCompletion(TypedDict):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    service_tier: Tier
    system_fingerprint: str
    metadata: NotRequired[dict[str, str]]
    prompt_logprobs: NotRequired[list[dict[str, PromptTokenShape] | None]]
    prompt_token_ids: NotRequired[list[int]]


@closed
class TextLogprobs(TypedDict):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


@closed
class TextChoice(TypedDict):
    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: Literal["stop", "length"]
    stop_reason: str | int | None
    prompt_token_ids: NotRequired[list[int]]
    token_ids: NotRequired[list[int]]


@closed
class Completion(TypedDict):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage
    service_tier: Tier
    system_fingerprint: str
    metadata: NotRequired[dict[str, str]]


@closed
class Modalities(TypedDict):
    input_modalities: list[str]
    output_modalities: list[str]


@closed
class ModelShape(TypedDict):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    max_model_len: int | None
    architecture: Modalities
    note: NotRequired[str]


@closed
class ModelList(TypedDict):
    object: Literal["list"]
    data: list[ModelShape]


@closed
class InputTokens(TypedDict):
    object: Literal["response.input_tokens"]
    input_tokens: int


@closed
class Tokens(TypedDict):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


@closed
class Detokenized(TypedDict):
    prompt: str


@closed
class Capabilities(TypedDict):
    object: Literal["capabilities"]
    model: str
    strict_params: bool
    limits: dict[str, float | None]
    endpoints: dict[str, dict[str, dict[str, Any]]]


@closed
class Version(TypedDict):
    version: str
    models: list[str]
    system_fingerprint: str
    engine: dict[str, Any] | None


@closed
class Load(TypedDict):
    server_load: int


def answers(shape: Any, *, streams: bool = False, failure: Any = Error) -> dict[int | str, Any]:
    """What OpenAPI says of a route's answers, as FastAPI takes it.

    Args:
        shape: of a body with status 200.
        streams: the answer may be server-sent events instead.
        failure: shape of the body of every other status.
    """
    success: dict[str, Any] = {"model": shape, "description": "The answer"}
    if streams:
        success["content"] = {"text/event-stream": {"schema": EVENT}}
    return {200: success, "default": {"model": failure, "description": "An error"}}
