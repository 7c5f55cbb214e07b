"""What a request says about the form of its answer, as one grammar.

`response_format`, `structured_outputs` with all its older names, and tools are three ways to say
it. Two forms at once are refused, except tools that may be called beside a JSON answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from server.api.completion_request import CompletionRequest
from server.api.explain import missing
from server.api.schemas import ChatRequest, GenerationRequest
from server.api.tool_schemas import ResponseFormat
from server.api.tool_use import ToolUse
from server.errors import ApiError, invalid
from server.frontend.grammar import (
    ANY_OBJECT,
    check_size,
    choice_grammar,
    free_grammar,
    json_schema_grammar,
    regex_grammar,
)
from server.frontend.tool_grammar import tool_grammar
from server.messages import Grammar


@dataclass(frozen=True, slots=True)
class Form:
    """What the answer must match."""

    grammar: Grammar
    param: str
    """Where in the request it comes from."""


@dataclass(frozen=True, slots=True)
class _Schema:
    schema: Mapping[str, Any]
    param: str


def read_form(request: GenerationRequest) -> Form | None:
    """The form that `structured_outputs` asks for; None where the answer is free.

    Raises:
        ApiError: 400 for a schema or a grammar that cannot be used.
    """
    options = request.structured_outputs
    given = {
        name: value
        for name, value in (options.by_name() if options else {}).items()
        if value is not None and value is not False
    }
    if len(given) > 1:
        raise invalid(
            f"'structured_outputs' takes one of {', '.join(given)}, not several.",
            param="structured_outputs",
        )
    for name, value in given.items():
        param = f"structured_outputs.{name}"
        return Form(_grammar(name, value, param), param)
    return None


def read_request_form(request: ChatRequest | CompletionRequest) -> Form | None:
    """The form that a request without tools asks for.

    Raises:
        ApiError: as `read_form`, also for two forms that exclude each other.
    """
    form = read_form(request)
    schema = _answer_schema(request.response_format)
    if form and schema:
        raise _two_forms("response_format", form.param)
    if schema is None:
        return form
    return Form(json_schema_grammar(schema.schema, schema.param), schema.param)


def read_chat_form(request: ChatRequest, tools: ToolUse | None) -> Form | None:
    """The form that a chat request asks for, tools among the ways to ask.

    Raises:
        ApiError: as `read_request_form`.
    """
    if tools is None:
        return read_request_form(request)
    form = read_form(request)
    schema = _answer_schema(request.response_format)
    if form or (schema and tools.required):
        raise _two_forms(form.param if form else "response_format", tools.param)
    grammar = tool_grammar(
        tools.callable,
        params=tools.schema_params,
        required=tools.required,
        parallel=tools.parallel,
        answer_schema=schema.schema if schema else None,
        answer_param=schema.param if schema else "response_format",
    )
    return Form(grammar, tools.param)


def _grammar(name: str, value: Any, param: str) -> Grammar:
    match name:
        case "regex":
            return regex_grammar(value, param)
        case "choice":
            return choice_grammar(value, param)
        case "grammar":
            return free_grammar(value, param)
        case "json_object":
            return json_schema_grammar(ANY_OBJECT, param)
        case _:
            return json_schema_grammar(_decoded(value, param), param)


def _decoded(schema: Mapping[str, Any] | str, param: str) -> Mapping[str, Any]:
    if not isinstance(schema, str):
        return schema
    check_size(schema, param)
    try:
        value = msgspec.json.decode(schema)
    except (msgspec.DecodeError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise invalid(f"Invalid '{param}': expected a JSON schema, an object.", param=param)
    return value


def _answer_schema(form: ResponseFormat | None) -> _Schema | None:
    if form is None or form.type == "text":
        return None
    if form.type == "json_object":
        return _Schema(form.schema_ or ANY_OBJECT, "response_format.schema")
    if form.json_schema is None:
        raise missing("response_format.json_schema")
    if form.json_schema.schema_ is None:
        raise missing("response_format.json_schema.schema")
    return _Schema(form.json_schema.schema_, "response_format.json_schema.schema")


def _two_forms(one: str, other: str) -> ApiError:
    return invalid(f"'{one}' and '{other}' cannot be used together.", param=one)
