"""The body of `POST /v1/responses`: the subset of OpenAI's fields that this server honours.

What stands inside content parts, schemas and sampling fields is checked when the request has become
a chat request, by the same models.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from server.api.schema_base import Model, expected
from server.api.schemas import TOP_LOGPROBS_MAX, GenerationRequest
from server.api.tool_schemas import TOOLS_MAX

ITEMS_MAX = 2048

LOGPROBS = "message.output_text.logprobs"
Include = Literal[
    "message.output_text.logprobs",
    "message.input_image.image_url",
    "reasoning.encrypted_content",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
]
"""All but the first ask for parts of items that this server never makes."""


class InputItem(Model):
    """A message, a call of a function, its output, or an item that a former answer had."""

    type: str = "message"
    id: str | None = None
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: Any = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: Any = None


class TextFormat(Model):
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    description: str | None = None
    strict: bool | None = None


class TextOptions(Model):
    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class FunctionTool(Model):
    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ResponseToolChoice(Model):
    """`none`, `auto` and `required` stand in `type` here."""

    type: str
    name: str | None = None
    mode: Literal["auto", "required"] | None = None
    tools: Annotated[list[FunctionTool], Field(fail_fast=True, max_length=TOOLS_MAX)] | None = None


def _word_as_object(value: Any) -> Any:
    if isinstance(value, str):
        return {"type": value}
    if value is not None and not isinstance(value, dict):
        raise expected("a string or an object")
    return value


class Reasoning(Model):
    effort: str | None = None
    summary: str | None = None


def _text_as_items(value: Any) -> Any:
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if not isinstance(value, list):
        raise expected("a string or an array of items")
    return value


Items = Annotated[
    Annotated[list[InputItem], Field(fail_fast=True, max_length=ITEMS_MAX)],
    BeforeValidator(_text_as_items, json_schema_input_type=str | list[InputItem]),
]


class ResponseRequest(GenerationRequest):
    """A response. Sampling fields of chat requests are taken too."""

    input: Items
    instructions: str | None = None
    previous_response_id: str | None = Field(
        None, description="Goes on after this response, as far as it is still stored."
    )
    max_output_tokens: int | None = Field(
        None, ge=1, description="Default: the room left in the context."
    )
    top_logprobs: int | None = Field(None, ge=0, le=TOP_LOGPROBS_MAX)
    include: Annotated[list[Include], Field(fail_fast=True)] | None = None
    text: TextOptions | None = None
    tools: Annotated[list[FunctionTool], Field(fail_fast=True, max_length=TOOLS_MAX)] | None = None
    tool_choice: Annotated[
        ResponseToolChoice | None,
        BeforeValidator(_word_as_object, json_schema_input_type=str | ResponseToolChoice | None),
    ] = None
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    truncation: Literal["auto", "disabled"] | None = Field(
        None, description="auto drops the oldest items of a conversation that is too long."
    )
    store: bool | None = Field(
        None, description="Keep the response for GET and previous_response_id. Default: true."
    )

    @property
    def with_logprobs(self) -> bool:
        return LOGPROBS in (self.include or ())

    @property
    def idle(self) -> tuple[str, ...]:
        """Fields that have no effect without others."""
        return ("top_logprobs",) if self.top_logprobs and not self.with_logprobs else ()
