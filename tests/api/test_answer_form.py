from __future__ import annotations

from typing import Any

import pytest

from server.api.answer_form import Form, read_chat_form
from server.api.schemas import ChatRequest
from server.api.tool_use import read_tool_use
from server.errors import ApiError
from server.frontend.grammar import TEXT_BYTES_MAX
from server.messages import GrammarKind
from tests.api.harness import chat
from tests.frontend.grammars import Verdict, judge

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
TOOLS = [{"type": "function", "function": {"name": "f"}}]


def with_parameters(parameters: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "g", "parameters": parameters}}


def read(**fields: Any) -> Form | None:
    request = ChatRequest.model_validate(chat("Hi", **fields))
    return read_chat_form(request, read_tool_use(request))


def form(**fields: Any) -> Form:
    value = read(**fields)
    assert value is not None
    return value


def json_schema(**fields: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", **fields}}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"response_format": {"type": "text"}},
        {"structured_outputs": {}},
        {"structured_outputs": {"json": None, "json_object": False}},
    ],
)
def test_a_free_answer(fields: dict[str, Any]) -> None:
    assert read(**fields) is None


@pytest.mark.parametrize(
    ("fields", "param", "kind", "good", "bad"),
    [
        (
            {"response_format": json_schema(schema=SCHEMA)},
            "response_format.json_schema.schema",
            GrammarKind.JSON_SCHEMA,
            '{"a": 1}',
            '{"a": "',
        ),
        (
            {"response_format": json_schema(schema=SCHEMA, strict=False)},
            "response_format.json_schema.schema",
            GrammarKind.JSON_SCHEMA,
            '{"a": 1}',
            "[",
        ),
        (
            {"response_format": {"type": "json_object"}},
            "response_format.schema",
            GrammarKind.JSON_SCHEMA,
            '{"b": 1}',
            "[",
        ),
        (
            {"response_format": {"type": "json_object", "schema": SCHEMA}},
            "response_format.schema",
            GrammarKind.JSON_SCHEMA,
            '{"a": 1}',
            '{"b',
        ),
        (
            {"structured_outputs": {"json": '{"type": "integer"}'}},
            "structured_outputs.json",
            GrammarKind.JSON_SCHEMA,
            "5",
            "x",
        ),
        (
            {"structured_outputs": {"regex": "a+"}},
            "structured_outputs.regex",
            GrammarKind.REGEX,
            "aa",
            "b",
        ),
        (
            {"structured_outputs": {"choice": ["yes", "no"]}},
            "structured_outputs.choice",
            GrammarKind.LARK,
            "no",
            "x",
        ),
        (
            {"structured_outputs": {"grammar": 'start: "x" "y"?'}},
            "structured_outputs.grammar",
            GrammarKind.LARK,
            "xy",
            "y",
        ),
        (
            {"tools": TOOLS, "response_format": json_schema(schema=SCHEMA)},
            "tools",
            GrammarKind.LARK,
            '{"a": 1}',
            "x",
        ),
    ],
)
def test_forms(fields: dict[str, Any], param: str, kind: GrammarKind, good: str, bad: str) -> None:
    value = form(**fields)
    assert (value.param, value.grammar.kind) == (param, kind)
    assert judge(value.grammar, good) is Verdict.COMPLETE
    assert judge(value.grammar, bad) is Verdict.REFUSED


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        (
            {"structured_outputs": {"regex": "a", "choice": ["b"]}},
            "structured_outputs",
            "invalid_value",
        ),
        (
            {"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}},
            "response_format",
            "invalid_value",
        ),
        (
            {"structured_outputs": {"regex": "a"}, "tools": TOOLS},
            "structured_outputs.regex",
            "invalid_value",
        ),
        (
            {
                "response_format": {"type": "json_object"},
                "tools": TOOLS,
                "tool_choice": "required",
            },
            "response_format",
            "invalid_value",
        ),
        (
            {"response_format": {"type": "json_schema"}},
            "response_format.json_schema",
            "missing_required_parameter",
        ),
        (
            {"response_format": json_schema()},
            "response_format.json_schema.schema",
            "missing_required_parameter",
        ),
        (
            {"response_format": json_schema(schema={"not": {}})},
            "response_format.json_schema.schema",
            "invalid_schema",
        ),
        ({"structured_outputs": {"json": "{"}}, "structured_outputs.json", "invalid_value"),
        ({"structured_outputs": {"json": "5"}}, "structured_outputs.json", "invalid_value"),
        (
            {"structured_outputs": {"json": "{" + " " * TEXT_BYTES_MAX + "}"}},
            "structured_outputs.json",
            "invalid_schema",
        ),
        (
            {"tools": [*TOOLS, with_parameters({"not": 1})]},
            "tools[1].function.parameters",
            "invalid_schema",
        ),
        (
            {
                "tools": [*TOOLS, with_parameters({"not": 1})],
                "tool_choice": {"type": "function", "function": {"name": "g"}},
            },
            "tools[1].function.parameters",
            "invalid_schema",
        ),
        (
            {
                "functions": [{"name": "f"}, {"name": "g", "parameters": {"not": 1}}],
                "function_call": {"name": "g"},
            },
            "functions[1].parameters",
            "invalid_schema",
        ),
        *(
            (
                {
                    "tools": [*TOOLS, with_parameters({"type": kind})],
                    "tool_choice": choice,
                },
                "tools[1].function.parameters",
                "invalid_schema",
            )
            for kind in ("string", "null", ["object", "string"], None)
            for choice in ("auto", "required")
        ),
    ],
)
def test_refuses(fields: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(ApiError) as caught:
        read(**fields)
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, param, code)
