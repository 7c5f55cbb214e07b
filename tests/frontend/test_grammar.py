from __future__ import annotations

import json
import time
import tracemalloc
from typing import Any

import pytest

from server.errors import MESSAGE_CHARS_MAX, ApiError
from server.frontend.grammar import (
    ANY_OBJECT,
    REGEX_CHARS_MAX,
    TEXT_BYTES_MAX,
    choice_grammar,
    free_grammar,
    json_schema_grammar,
    regex_grammar,
)
from server.frontend.grammar_check import GrammarChecker
from tests.frontend.grammars import Verdict, judge

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "ages": {"type": "array", "items": {"type": "integer"}},
    },
    "required": ["name", "ages"],
    "additionalProperties": False,
}
VALUE = {"name": "Ann", "ages": [1, 2]}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(VALUE),
        json.dumps(VALUE, separators=(",", ":")),
        json.dumps(VALUE, indent=2),
        json.dumps(VALUE, indent=4),
    ],
)
def test_a_schema_takes_json_as_models_write_it(text: str) -> None:
    assert judge(json_schema_grammar(PERSON, "p"), text) is Verdict.COMPLETE


@pytest.mark.parametrize("text", ['{"ages"', "{\n\n", "{  ", '{"name": 5', " {", "x"])
def test_a_schema_refuses_everything_else(text: str) -> None:
    assert judge(json_schema_grammar(PERSON, "p"), text) is Verdict.REFUSED


def test_nothing_follows_the_json() -> None:
    assert judge(json_schema_grammar(PERSON, "p"), json.dumps(VALUE) + "\n") is Verdict.REFUSED


def test_options_of_the_client_for_the_grammar_library_do_not_count() -> None:
    schema = {**PERSON, "x-guidance": {"whitespace_pattern": "z"}}
    assert judge(json_schema_grammar(schema, "p"), '{z"') is Verdict.REFUSED


def test_any_object() -> None:
    built = json_schema_grammar(ANY_OBJECT, "p")
    assert judge(built, '{"a": [1, {"b": null}]}') is Verdict.COMPLETE
    assert judge(built, "[") is Verdict.REFUSED


def test_one_of_is_any_of(checker: GrammarChecker) -> None:
    schema = {"oneOf": [{"type": "string"}, {"type": "string", "minLength": 2}]}
    built = json_schema_grammar(schema, "p")
    checker.check(built, "p")
    assert judge(built, '"abc"') is Verdict.COMPLETE


@pytest.mark.parametrize("text", ["yes", "no\n", 'quote "', "back\\slash", "你好"])
def test_choices_of_any_characters(text: str) -> None:
    built = choice_grammar(["maybe", text], "p")
    assert judge(built, text) is Verdict.COMPLETE
    assert judge(built, "x") is Verdict.REFUSED


def test_an_empty_choice_is_named() -> None:
    with pytest.raises(ApiError) as caught:
        choice_grammar(["a", ""], "structured_outputs.choice")
    assert caught.value.param == "structured_outputs.choice[1]"


@pytest.mark.parametrize("text", ['start: "a" | "b"', 'root ::= "a" | "b"'])
def test_both_notations_of_grammars(text: str) -> None:
    assert judge(free_grammar(text, "p"), "b") is Verdict.COMPLETE


def test_a_regular_expression_is_for_the_whole_answer() -> None:
    built = regex_grammar(r"\d{3}", "p")
    assert judge(built, "123") is Verdict.COMPLETE
    assert judge(built, "1234") is Verdict.REFUSED


@pytest.mark.parametrize(
    "make",
    [
        lambda text: json_schema_grammar({"const": text}, "p"),
        lambda text: choice_grammar([text], "p"),
        lambda text: free_grammar(text, "p"),
        lambda text: regex_grammar(text, "p"),
    ],
)
def test_what_is_too_long(make: Any) -> None:
    with pytest.raises(ApiError) as caught:
        make("x" * (TEXT_BYTES_MAX + 1))
    assert caught.value.param == "p"
    assert len(caught.value.message) < MESSAGE_CHARS_MAX


def test_a_constant_that_is_too_deep() -> None:
    value: Any = 0
    for _ in range(100_000):
        value = [value]
    with pytest.raises(ApiError) as caught:
        json_schema_grammar({"const": value}, "p")
    assert caught.value.code == "invalid_schema"


@pytest.mark.parametrize("text", ["\n" * 60_000, "root ::= b\n" + " \n" * 20_000 + "c"])
def test_empty_lines_cost_nothing(text: str) -> None:
    begin = time.monotonic()
    with pytest.raises(ApiError):
        free_grammar(text, "p")
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize(
    "text",
    [
        "\\/" * 32_768,
        "/a" + "\\/" * 32_000,
        "start: /" + "[" * 65_000 + "/",
        "start: /" + "(" * 65_000 + "/",
    ],
)
def test_hostile_expressions_cost_nothing(text: str) -> None:
    began_s = time.thread_time()
    with pytest.raises(ApiError) as caught:
        free_grammar(text, "p")
    assert caught.value.code == "invalid_grammar"
    assert time.thread_time() - began_s < 2


@pytest.mark.parametrize("unclosed", ["", " /[b", "\n/c\\/"])
def test_expressions_of_a_grammar_are_bounded(unclosed: str) -> None:
    def with_expression(chars: int) -> str:
        return "start: A\nA: /" + "\\/" * (chars // 2) + "/" + unclosed

    free_grammar(with_expression(REGEX_CHARS_MAX), "p")
    with pytest.raises(ApiError, match=f"at most {REGEX_CHARS_MAX} characters") as caught:
        free_grammar(with_expression(REGEX_CHARS_MAX + 2), "p")
    assert (caught.value.param, caught.value.code) == ("p", "invalid_grammar")


@pytest.mark.parametrize("expression", ["a{1000}" * 21, r"(\/{1000}){1000}"])
@pytest.mark.parametrize("before", ["", r"A: /\/x/", "// half / a comment", r"/\/"])
def test_each_expression_of_a_grammar_is_weighed(before: str, expression: str) -> None:
    with pytest.raises(ApiError, match="repeats written out"):
        free_grammar(f"start: A B\n{before}\nB: /{expression}/", "p")


def test_the_size_of_a_schema_is_checked_first() -> None:
    schema = {"properties": {"A" * 100_000: {"anyOf": [True] * 2000}}}
    tracemalloc.start()
    try:
        with pytest.raises(ApiError, match=f"at most {TEXT_BYTES_MAX} bytes") as caught:
            json_schema_grammar(schema, "p")
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
    assert (caught.value.param, caught.value.code) == ("p", "invalid_schema")


def test_a_text_that_is_no_grammar() -> None:
    with pytest.raises(ApiError) as caught:
        free_grammar("root ::= )", "p")
    assert (caught.value.param, caught.value.code) == ("p", "invalid_grammar")
