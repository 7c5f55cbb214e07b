from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest

from server.errors import ApiError
from server.frontend.grammar import json_schema_grammar, regex_grammar
from server.frontend.grammar_check import GrammarChecker
from server.messages import Grammar, GrammarKind
from tests.golden import CHECKPOINT

GOOD = Grammar(GrammarKind.REGEX, "(ab|c){2}")
ENDLESS_SCHEMA = {
    "type": "object",
    "properties": {
        "a": {"allOf": [{"type": "integer", "multipleOf": p} for p in (7, 11, 13, 17, 19, 23)]}
    },
}
ENDLESS = Grammar(GrammarKind.JSON_SCHEMA, json.dumps(ENDLESS_SCHEMA))
"""Keeps the grammar library busy for longer than anybody has waited. `schema_check` refuses it,
which is why it is not made by `json_schema_grammar` here."""


def rejection(checker: GrammarChecker, grammar: Grammar) -> ApiError:
    with pytest.raises(ApiError) as caught:
        checker.check(grammar, "p")
    return caught.value


def newest_process() -> psutil.Process:
    """The one that was asked last, among those of other tests."""
    children = psutil.Process(os.getpid()).children()
    asked = [child for child in children if "server.grammar_process" in child.cmdline()]
    return max(asked, key=lambda child: child.create_time())


@pytest.mark.parametrize(
    ("grammar", "words"),
    [
        (regex_grammar("a(?=b)", "p"), "look-around is not supported"),
        (regex_grammar("(", "p"), "a regular expression is not valid"),
        (Grammar(GrammarKind.LARK, "start: missing"), "it is not valid"),
        (json_schema_grammar({"enum": []}, "p"), "no value satisfies it"),
        (json_schema_grammar({"$ref": "#nowhere"}, "p"), "a reference leads nowhere"),
        (json_schema_grammar({"type": "string", "pattern": "("}, "p"), "a regular expression"),
        (json_schema_grammar({"$ref": "#"}, "p"), "it is not valid"),
    ],
)
def test_what_cannot_be_built(checker: GrammarChecker, grammar: Grammar, words: str) -> None:
    for _ in range(2):
        with pytest.raises(ApiError) as caught:
            checker.check(grammar, "p")
        assert words in caught.value.message
        assert caught.value.param == "p"
        json_schema = grammar.kind is GrammarKind.JSON_SCHEMA
        assert caught.value.code == ("invalid_schema" if json_schema else "invalid_grammar")


def test_a_schema_that_is_too_large(checker: GrammarChecker) -> None:
    shared: dict[str, Any] = {"0": {"type": "string"}}
    for level in range(1, 13):
        before = {"$ref": f"#/$defs/{level - 1}"}
        shared[str(level)] = {"allOf": [{"anyOf": [before, {"const": end}]} for end in "ab"]}
    with pytest.raises(ApiError) as caught:
        checker.check(json_schema_grammar({"$defs": shared, "$ref": "#/$defs/12"}, "p"), "p")
    assert "too large" in caught.value.message


@pytest.fixture
def hasty() -> Iterator[GrammarChecker]:
    checker = GrammarChecker(CHECKPOINT, timeout_s=0.7)
    yield checker
    checker.close()


def test_what_takes_too_long_is_killed_and_refused_and_the_next_one_is_served(
    hasty: GrammarChecker,
) -> None:
    hasty.check(GOOD, "p")
    began = time.monotonic()
    error = rejection(hasty, ENDLESS)
    assert time.monotonic() - began < 10
    assert (error.status, error.code, error.param) == (400, "invalid_schema", "p")
    assert "takes longer than 0.7 s" in error.message
    assert "'multipleOf' at '#/properties/a/allOf/5'" in error.message
    hasty.check(Grammar(GrammarKind.REGEX, "another"), "p")
    began = time.monotonic()
    assert rejection(hasty, ENDLESS).message == error.message
    assert time.monotonic() - began < 0.5, "it is remembered"


def test_a_tool_that_takes_too_long(hasty: GrammarChecker) -> None:
    rules = f"start: arguments_0\narguments_0: %json {ENDLESS.text}\n"
    error = rejection(hasty, Grammar(GrammarKind.LARK, rules))
    assert "'multipleOf'" in error.message
    assert error.code == "invalid_grammar"


def test_a_process_that_dies_costs_one_request(hasty: GrammarChecker) -> None:
    hasty.check(GOOD, "p")
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(rejection, hasty, ENDLESS)
        newest_process().kill()
        assert "too large" in asked.result().message or "longer" in asked.result().message
    hasty.check(Grammar(GrammarKind.REGEX, "x+"), "p")


def test_a_process_that_dies_while_nobody_asks_costs_nothing(checker: GrammarChecker) -> None:
    checker.check(GOOD, "p")
    for comment in ("one", "a long one" * 10_000):
        process = newest_process()
        process.kill()
        process.wait(10)
        checker.check(Grammar(GrammarKind.LARK, f'start: "x" // {comment}'), "p")
        assert newest_process() != process


def test_closing_ends_the_process_whatever_it_does() -> None:
    checker = GrammarChecker(CHECKPOINT, timeout_s=30)
    checker.check(GOOD, "p")
    process = newest_process()
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(rejection, checker, ENDLESS)
        time.sleep(0.2)
        began = time.monotonic()
        checker.close()
        assert asked.result().status == 503
    assert time.monotonic() - began < 5
    assert not process.is_running()
    assert rejection(checker, ENDLESS).status == 503
