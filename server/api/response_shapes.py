"""The shapes of responses and of Anthropic's messages, as `shapes` has those of the others."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from server.api.shapes import ScoredTokenShape, Tier, closed

Status = Literal["in_progress", "completed", "incomplete", "failed"]


@closed
class OutputText(TypedDict):
    type: Literal["output_text"]
    text: str
    annotations: list[Any]
    logprobs: list[ScoredTokenShape]


@closed
class OutputMessage(TypedDict):
    id: str
    type: Literal["message"]
    status: Status
    role: Literal["assistant"]
    content: list[OutputText]


@closed
class OutputCall(TypedDict):
    id: str
    type: Literal["function_call"]
    status: Status
    call_id: str
    name: str
    arguments: str


@closed
class InputTokensDetails(TypedDict):
    cached_tokens: int
    cache_write_tokens: int
    image_tokens: int
    text_tokens: int


@closed
class OutputTokensDetails(TypedDict):
    reasoning_tokens: int


@closed
class ResponseUsage(TypedDict):
    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


@closed
class ResponseError(TypedDict):
    code: str
    message: str


@closed
class IncompleteDetails(TypedDict):
    reason: Literal["max_output_tokens"]


@closed
class ReasoningShape(TypedDict):
    effort: str | None
    summary: str | None


@closed
class ResponseShape(TypedDict):
    id: str
    object: Literal["response"]
    created_at: int
    status: Status
    background: Literal[False]
    completed_at: int | None
    error: ResponseError | None
    incomplete_details: IncompleteDetails | None
    instructions: Any
    max_output_tokens: int | None
    model: str
    output: list[OutputMessage | OutputCall]
    parallel_tool_calls: bool
    previous_response_id: str | None
    reasoning: ReasoningShape
    service_tier: Tier
    store: bool
    temperature: float
    text: dict[str, Any]
    tool_choice: Any
    tools: list[Any]
    top_logprobs: int
    top_p: float
    truncation: Literal["auto", "disabled"]
    usage: ResponseUsage | None
    metadata: dict[str, str]


@closed
class ResponseDeleted(TypedDict):
    id: str
    object: Literal["response"]
    deleted: Literal[True]


@closed
class ItemList(TypedDict):
    object: Literal["list"]
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


@closed
class AnthropicText(TypedDict):
    type: Literal["text"]
    text: str


@closed
class AnthropicCall(TypedDict):
    type: Literal["tool_use"]
    id: str
    name: str
    input: Any


@closed
class AnthropicUsage(TypedDict):
    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int


@closed
class AnthropicMessage(TypedDict):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[AnthropicText | AnthropicCall]
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]
    stop_sequence: str | None
    usage: AnthropicUsage


@closed
class AnthropicTokens(TypedDict):
    input_tokens: int


@closed
class AnthropicFailure(TypedDict):
    type: str
    message: str


@closed
class AnthropicError(TypedDict):
    type: Literal["error"]
    error: AnthropicFailure
    request_id: NotRequired[str]
