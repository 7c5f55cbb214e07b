from __future__ import annotations

import json

import pytest

from server.frontend.tools import Tool, call_text, system_block

WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}}


def test_each_tool_has_its_line() -> None:
    block = system_block([Tool("weather", WEATHER, "Tells the weather of 城."), Tool("time", {})])
    inside = block.split("<tools>\n")[1].split("\n</tools>")[0].splitlines()
    assert [json.loads(line)["function"] for line in inside] == [
        {"name": "weather", "description": "Tells the weather of 城.", "parameters": WEATHER},
        {"name": "time", "parameters": {}},
    ]
    assert "城" in block


def test_the_block_shows_the_form_of_a_call() -> None:
    block = system_block([Tool("f", {})])
    assert '<tool_call>\n{"name": <function name>' in block
    assert block.endswith("within <tool_response></tool_response>.")


@pytest.mark.parametrize(
    ("arguments", "written"),
    [
        ('{"a": "é"}', '{"a": "é"}'),
        (' {"a":1}\n', '{"a":1}'),
        ("", "{}"),
        ("not json", '"not json"'),
        ('{"a": "\\ud800"}', '{"a": "\\ud800"}'),
    ],
)
def test_a_call_as_the_model_writes_it(arguments: str, written: str) -> None:
    expected = f'<tool_call>\n{{"name": "f", "arguments": {written}}}\n</tool_call>'
    assert call_text("f", arguments) == expected
