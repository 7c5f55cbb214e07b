"""The body of `POST /v1/messages`, in Anthropic's shape."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from server.api.schema_base import Model, expected
from server.api.tool_schemas import TOOLS_MAX

MESSAGES_MAX = 2048
BLOCKS_MAX = 4096


def _text_as_blocks(value: Any) -> Any:
    if isinstance(value, str):
        return [{"type": "text", "text": value}]
    if value is not None and not isinstance(value, list):
        raise expected("a string or an array of content blocks")
    return value


class AnthropicSource(Model):
    """A picture: `base64` with media_type and data, or `url`."""

    type: str
    media_type: str | None = None
    data: str | None = None
    url: str | None = None


class AnthropicBlock(Model):
    """`text`, `image`, `tool_use`, `tool_result`, or a `thinking` of another model."""

    type: str
    text: str | None = None
    source: AnthropicSource | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None
    content: AnthropicBlocks | None = None


AnthropicBlocks = Annotated[
    Annotated[list[AnthropicBlock], Field(fail_fast=True, max_length=BLOCKS_MAX)],
    BeforeValidator(_text_as_blocks, json_schema_input_type=str | list[AnthropicBlock]),
]


class AnthropicMessage(Model):
    role: Literal["user", "assistant"]
    content: AnthropicBlocks


class AnthropicTool(Model):
    name: str
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None


class AnthropicToolChoice(Model):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class AnthropicFormat(Model):
    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class AnthropicOutput(Model):
    format: AnthropicFormat | None = None


class CountRequest(Model):
    """What `/v1/messages/count_tokens` counts."""

    model: str
    messages: Annotated[
        list[AnthropicMessage], Field(fail_fast=True, min_length=1, max_length=MESSAGES_MAX)
    ]
    system: AnthropicBlocks | None = None
    tools: Annotated[list[AnthropicTool], Field(fail_fast=True, max_length=TOOLS_MAX)] | None = None
    tool_choice: AnthropicToolChoice | None = None
    output_config: AnthropicOutput | None = None


class MessagesRequest(CountRequest):
    """A message."""

    max_tokens: int = Field(ge=1, description="Longest answer in tokens.")
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=0, le=2**31 - 1)
    stop_sequences: Annotated[list[str], Field(fail_fast=True)] | None = None
    stream: bool | None = None


AnthropicBlock.model_rebuild()
