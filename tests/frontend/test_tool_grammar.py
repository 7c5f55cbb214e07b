from __future__ import annotations

from typing import Any

import pytest

from server.errors import ApiError
from server.frontend.grammar_check import GrammarChecker
from server.frontend.tool_grammar import tool_grammar
from server.frontend.tools import Tool, call_text
from server.messages import Grammar
from tests.frontend.grammars import Verdict, judge

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = (
    Tool("weather", CITY),
    Tool("time", {"type": "object", "properties": {}, "additionalProperties": False}),
)
WEATHER = call_text("weather", '{"city": "}</tool_call>"}')
TIME = call_text("time", "{}")
REFUSED, UNFINISHED, COMPLETE = Verdict


def grammar(**options: Any) -> Grammar:
    return tool_grammar(
        TOOLS, **{"params": ["a", "b"], "required": False, "parallel": True, **options}
    )


@pytest.mark.parametrize(
    ("options", "answers"),
    [
        (
            {"required": True},
            {
                WEATHER: COMPLETE,
                f"{WEATHER}\n{TIME}": COMPLETE,
                f"Hi {TIME}": REFUSED,
                "": UNFINISHED,
                '<tool_call>\n{"name": "other"': REFUSED,
                '<tool_call>\n{"name": "weather", "arguments": {"c': UNFINISHED,
                '<tool_call>\n{"name": "weather", "arguments": {}': REFUSED,
                "\n".join([TIME] * 16): COMPLETE,
                "\n".join([TIME] * 17): REFUSED,
            },
        ),
        ({"required": True, "parallel": False}, {TIME: COMPLETE, f"{TIME}\n": REFUSED}),
        (
            {},
            {
                "": COMPLETE,
                "Hello {": COMPLETE,
                "a <tool_call": COMPLETE,
                "a <tool_call>": UNFINISHED,
                "a <tool_call>x": REFUSED,
                f"a {TIME}\n{WEATHER}": COMPLETE,
                f"{TIME} and": REFUSED,
                '<tool_call>\n{"name": "weather", "arguments": {"c': UNFINISHED,
            },
        ),
        ({"parallel": False}, {"a": COMPLETE, f"a {TIME}": COMPLETE, f"{TIME}\n{TIME}": REFUSED}),
        (
            {"answer_schema": CITY},
            {'{"city": "a"}': COMPLETE, TIME: COMPLETE, "Hello": REFUSED, '{"a": 1}': REFUSED},
        ),
    ],
)
def test_which_answers_it_takes(
    checker: GrammarChecker, options: dict[str, Any], answers: dict[str, Verdict]
) -> None:
    built = grammar(**options)
    checker.check(built, "tools")
    assert {text: judge(built, text) for text in answers} == answers


def test_white_space_in_arguments_has_an_end() -> None:
    begin = '<tool_call>\n{"name": "weather", "arguments": {'
    built = grammar(required=True)
    assert judge(built, f'{begin}\n    "city": "a"\n}}') is UNFINISHED
    assert judge(built, f"{begin}\n\n") is REFUSED
    assert judge(built, f"{begin}  ") is REFUSED


def test_a_bad_schema_is_named_by_its_place() -> None:
    tools = (TOOLS[0], Tool("bad", {"type": "object", "properties": {"a": {"not": {}}}}))
    with pytest.raises(ApiError) as caught:
        tool_grammar(tools, params=["a", "b"], required=False, parallel=True)
    assert (caught.value.param, caught.value.code) == ("b", "invalid_schema")
    assert "'not' at '#/properties/a'" in caught.value.message


def test_arguments_are_an_object_whatever_the_schema_leaves_open() -> None:
    built = tool_grammar((Tool("f", {}),), params=["a"], required=True, parallel=False)
    begin = '<tool_call>\n{"name": "f", "arguments": '
    assert judge(built, f"{begin}{{") is UNFINISHED
    assert judge(built, f'{begin}"') is REFUSED
