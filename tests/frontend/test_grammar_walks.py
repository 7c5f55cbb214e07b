"""Whatever a model writes within a grammar can be read: random walks through the masks."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from server.engine.grammar import GrammarCompiler
from server.frontend.detokenizer import Detokenizer
from server.frontend.grammar import choice_grammar, json_schema_grammar
from server.frontend.matchers import matcher_factory
from server.frontend.tokenizer import Tokenizer
from server.frontend.tool_grammar import tool_grammar
from server.frontend.tool_parser import ArgumentsPiece, CallBegin, ToolParser
from server.frontend.tools import Tool
from server.messages import Grammar
from tests.frontend.support import golden_tokenizer

STEPS_MAX = 400
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
        "kind": {"enum": ["a", "b"]},
        "flags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
        "text": {"type": "string", "maxLength": 8},
    },
    "required": ["count", "kind", "flags", "text"],
    "additionalProperties": False,
}
TOOLS = (Tool("f", SCHEMA), Tool("g", {"type": "object", "additionalProperties": False}))


class Walker:
    """Draws at random from what the grammar allows."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.compiler = GrammarCompiler(matcher_factory(tokenizer, tokenizer.vocab_size))

    def walk(self, grammar: Grammar, seed: int, begin: str = "") -> str:
        matcher = self.compiler.compile(grammar).result()
        ids = self._tokenizer.encode_text(begin)
        for token_id in ids:
            matcher.accept(token_id)
        draw = random.Random(seed)
        for _ in range(STEPS_MAX):
            mask = int.from_bytes(matcher.mask(), "little")
            allowed = [i for i in range(self._tokenizer.vocab_size) if mask >> i & 1]
            token_id = draw.choice(allowed)
            if token_id in self._tokenizer.stop_ids:
                break
            ids.append(token_id)
            matcher.accept(token_id)
            assert not matcher.failed
            if matcher.complete:
                break
        else:
            raise AssertionError("the grammar lets an answer go on without end")
        detokenizer = Detokenizer(self._tokenizer)
        return detokenizer.push(ids) + detokenizer.finish()


@pytest.fixture(scope="module")
def walker() -> Iterator[Walker]:
    walker = Walker(golden_tokenizer())
    yield walker
    walker.compiler.close()


def calls_in(text: str) -> list[tuple[str, Any]]:
    parser = ToolParser()
    calls: list[tuple[str, str]] = []
    for event in [*parser.push(text), *parser.finish()]:
        match event:
            case CallBegin(name):
                calls.append((name, ""))
            case ArgumentsPiece(piece):
                name, before = calls[-1]
                calls[-1] = name, before + piece
    return [(name, json.loads(arguments)) for name, arguments in calls]


@pytest.mark.parametrize("seed", range(8))
def test_json_is_always_read(walker: Walker, seed: int) -> None:
    value = json.loads(walker.walk(json_schema_grammar(SCHEMA, "p"), seed))
    assert list(value) == SCHEMA["required"]
    assert 0 <= value["count"] <= 99
    assert value["kind"] in ("a", "b")


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("required", "begin"), [(True, ""), (False, "Hm. <tool_call>")])
def test_calls_are_always_read(walker: Walker, seed: int, required: bool, begin: str) -> None:
    grammar = tool_grammar(TOOLS, params=["a", "b"], required=required, parallel=False)
    ((name, arguments),) = calls_in(walker.walk(grammar, seed, begin))
    assert list(arguments) == (SCHEMA["required"] if name == "f" else [])


@pytest.mark.parametrize("seed", range(4))
def test_choices_are_always_whole(walker: Walker, seed: int) -> None:
    assert walker.walk(choice_grammar(["yes", "no", "你好"], "p"), seed) in ("yes", "no", "你好")
