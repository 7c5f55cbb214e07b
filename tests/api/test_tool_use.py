from __future__ import annotations

from typing import Any

import pytest

from server.api.schemas import ChatRequest
from server.api.tool_use import NO_PARAMETERS, ToolUse, read_tool_use
from server.errors import ApiError
from tests.api.harness import chat

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
F = {"name": "f", "description": "F.", "parameters": SCHEMA}
G = {"name": "g"}
TOOLS = [{"type": "function", "function": F}, {"type": "function", "function": G}]


def read(**fields: Any) -> ToolUse | None:
    return read_tool_use(ChatRequest.model_validate(chat("Hi", **fields)))


def use(**fields: Any) -> ToolUse:
    value = read(**fields)
    assert value is not None
    return value


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def allowed(mode: str, *names: str) -> dict[str, Any]:
    return {
        "type": "allowed_tools",
        "allowed_tools": {"mode": mode, "tools": [named(name) for name in names]},
    }


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"tools": []},
        {"tools": None, "tool_choice": "auto"},
        {"tools": TOOLS, "tool_choice": "none"},
        {"functions": []},
        {"functions": [F], "function_call": "none"},
        {"tool_choice": "none"},
        {"function_call": "auto"},
    ],
)
def test_no_tools(fields: dict[str, Any]) -> None:
    assert read(**fields) is None


@pytest.mark.parametrize(
    ("choice", "callables", "required", "is_named"),
    [
        (None, ["f", "g"], False, False),
        ("auto", ["f", "g"], False, False),
        ("required", ["f", "g"], True, False),
        (named("g"), ["g"], True, True),
        (allowed("auto", "g"), ["g"], False, False),
        (allowed("required", "g", "f"), ["f", "g"], True, False),
    ],
)
def test_choices(choice: Any, callables: list[str], required: bool, is_named: bool) -> None:
    value = use(tools=TOOLS, tool_choice=choice)
    assert [tool.name for tool in value.shown] == ["f", "g"]
    assert [tool.name for tool in value.callable] == callables
    assert (value.required, value.named) == (required, is_named)
    assert value.parallel is not is_named
    assert not value.legacy


def test_what_a_tool_says() -> None:
    first, second = use(tools=TOOLS).shown
    assert (first.description, first.parameters) == ("F.", SCHEMA)
    assert (second.description, second.parameters) == (None, NO_PARAMETERS)


def test_one_call_on_demand() -> None:
    assert not use(tools=TOOLS, parallel_tool_calls=False).parallel
    assert use(tools=TOOLS, parallel_tool_calls=True).parallel


def test_the_older_fields_mean_the_same() -> None:
    value = use(functions=[F, G])
    assert (value.required, value.parallel, value.legacy) == (False, False, True)
    value = use(functions=[F, G], function_call={"name": "g"})
    assert [tool.name for tool in value.callable] == ["g"]
    assert (value.required, value.named) == (True, True)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"tools": [{"type": "custom"}]}, "tools[0].type", "unsupported_value"),
        (
            {"tools": [{"type": "function"}]},
            "tools[0].function",
            "missing_required_parameter",
        ),
        ({"tools": [TOOLS[0], TOOLS[0]]}, "tools[1].function.name", "invalid_value"),
        (
            {"tools": TOOLS, "tool_choice": named("h")},
            "tool_choice.function.name",
            "invalid_value",
        ),
        (
            {"tools": TOOLS, "tool_choice": {"type": "function", "name": "f"}},
            "tool_choice.function",
            "missing_required_parameter",
        ),
        (
            {"tools": TOOLS, "tool_choice": {"type": "custom"}},
            "tool_choice.type",
            "unsupported_value",
        ),
        (
            {"tools": TOOLS, "tool_choice": {"type": "allowed_tools"}},
            "tool_choice.allowed_tools",
            "missing_required_parameter",
        ),
        (
            {"tools": TOOLS, "tool_choice": allowed("auto", "f", "h")},
            "tool_choice.allowed_tools.tools",
            "invalid_value",
        ),
        ({"tools": TOOLS, "functions": [F]}, "functions", "invalid_value"),
        ({"tools": TOOLS, "function_call": "none"}, "function_call", "invalid_value"),
        ({"functions": [F], "tool_choice": "none"}, "tool_choice", "invalid_value"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
        ({"function_call": {"name": "f"}}, "function_call", "invalid_value"),
        ({"functions": [F, F]}, "functions[1].name", "invalid_value"),
        (
            {"functions": [F], "function_call": {"name": "h"}},
            "function_call.name",
            "invalid_value",
        ),
    ],
)
def test_refuses(fields: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(ApiError) as caught:
        read(**fields)
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, param, code)
