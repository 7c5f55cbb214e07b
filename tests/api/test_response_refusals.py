"""POST /v1/responses over HTTP: what is refused, and where the error says it stands."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.conftest import Rig
from tests.api.responses import TOOL, post

MESSAGE = {"role": "user", "content": "Hi"}


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"input": 5}, "input", "invalid_type"),
        ({"input": []}, "input", "empty_array"),
        ({"input": [{"role": "user"}]}, "input[0].content", "missing_required_parameter"),
        ({"input": [{"content": "Hi"}]}, "input[0].role", "missing_required_parameter"),
        ({"input": [{"role": "owl", "content": ""}]}, "input[0].role", "invalid_value"),
        ({"input": [MESSAGE, {"type": "item_reference"}]}, "input[1].type", "unsupported_value"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file"}]}]},
            "input[0].content[0].type",
            "unsupported_value",
        ),
        (
            {
                "instructions": "Hi",
                "input": [{"role": "user", "content": [{"type": "input_text"}]}],
            },
            "input[0].content[0].text",
            "missing_required_parameter",
        ),
        (
            {
                "input": [
                    {
                        "role": "user",
                        "content": [{"type": "input_image", "image_url": "http://a/b.png"}],
                    }
                ]
            },
            "input[0].content[0].image_url",
            "invalid_image_url",
        ),
        (
            {"input": [MESSAGE, {"type": "function_call", "call_id": "c", "name": "f"}]},
            "input[1].arguments",
            "missing_required_parameter",
        ),
        (
            {"input": [MESSAGE, {"type": "function_call_output", "call_id": "c", "output": 5}]},
            "input[1].output",
            "invalid_type",
        ),
        ({"max_output_tokens": 0}, "max_output_tokens", "integer_below_min_value"),
        ({"max_output_tokens": 512}, "input", "context_length_exceeded"),
        ({"temperature": 3}, "temperature", "decimal_above_max_value"),
        ({"background": True}, "background", "unsupported_parameter"),
        ({"conversation": "conv_1"}, "conversation", "unsupported_parameter"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt", "unsupported_parameter"),
        ({"n": 2}, "n", "unsupported_parameter"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "unsupported_value"),
        ({"tools": [TOOL, {"type": "mcp"}]}, "tools[1].type", "unsupported_value"),
        ({"tools": [{"type": "function"}]}, "tools[0].name", "missing_required_parameter"),
        ({"tools": [{"type": "function", "name": "a b"}]}, "tools[0].name", "invalid_value"),
        (
            {"tools": [TOOL, {"type": "function", "name": "f", "parameters": {"type": "string"}}]},
            "tools[1].parameters",
            "invalid_schema",
        ),
        ({"tools": [TOOL], "tool_choice": {"type": "mcp"}}, "tool_choice", "unsupported_value"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "name": "no"}},
            "tool_choice.name",
            "invalid_value",
        ),
        ({"include": ["everything"]}, "include[0]", "invalid_value"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type", "invalid_value"),
        (
            {"text": {"format": {"type": "json_schema", "name": "a"}}},
            "text.format.schema",
            "missing_required_parameter",
        ),
        (
            {"text": {"format": {"type": "json_schema", "name": "a", "schema": {"type": "owl"}}}},
            "text.format.schema",
            "invalid_schema",
        ),
        (
            {"previous_response_id": "resp_no"},
            "previous_response_id",
            "previous_response_not_found",
        ),
    ],
)
def test_what_is_refused(rig: Rig, fields: dict[str, Any], param: str, code: str) -> None:
    for stream in (False, True):
        response = post(rig, **{"input": "Hi", **fields, "stream": stream})
        assert response.status_code == 400, response.text
        error = response.json()["error"]
        assert (error["param"], error["code"]) == (param, code)
    assert rig.engine.received == []


def test_another_model_does_not_exist(rig: Rig) -> None:
    assert post(rig, model="no").status_code == 404
