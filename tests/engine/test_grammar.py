from __future__ import annotations

import json
import random
import re

import pytest

from server.engine.grammar import GrammarCompiler
from server.engine.request import Matcher
from server.engine_process import read_vocabulary
from server.frontend.tokenizer import Tokenizer
from server.messages import Grammar, GrammarKind
from tests import golden

TOKENIZER = Tokenizer.load(golden.CHECKPOINT)
VOCAB_SIZE = 1024

SCHEMA = {
    "type": "object",
    "properties": {"名": {"enum": ["红色", "blue"]}, "n": {"type": "integer"}},
    "required": ["名", "n"],
    "additionalProperties": False,
    "x-guidance": {"whitespace_flexible": False},
}
GRAMMARS = [
    Grammar(GrammarKind.JSON_SCHEMA, json.dumps(SCHEMA)),
    Grammar(GrammarKind.REGEX, "(ab|c){2,5}红?"),
    Grammar(GrammarKind.LARK, 'start: "yes" | "no" | word\nword: /[x-z]{3}/'),
]


@pytest.fixture(scope="module")
def compiler() -> GrammarCompiler:
    return GrammarCompiler(read_vocabulary(golden.CHECKPOINT), VOCAB_SIZE)


def allowed(matcher: Matcher) -> list[int]:
    mask = matcher.mask()
    return [token for token in range(VOCAB_SIZE) if mask[token // 8] >> token % 8 & 1]


def walk(matcher: Matcher, chance: random.Random) -> str:
    """A random answer, as text."""
    answer: list[int] = []
    while not matcher.complete:
        token = chance.choice(allowed(matcher))
        if token in TOKENIZER.stop_ids:
            break
        answer.append(token)
        matcher.accept(token)
        assert not matcher.failed
    return b"".join(map(TOKENIZER.token_bytes, answer)).decode()


def check(grammar: Grammar, text: str) -> None:
    match grammar.kind:
        case GrammarKind.JSON_SCHEMA:
            value = json.loads(text)
            assert value["名"] in ("红色", "blue")
            assert type(value["n"]) is int
        case GrammarKind.REGEX:
            assert re.fullmatch(grammar.text, text)
        case GrammarKind.LARK:
            assert re.fullmatch("yes|no|[x-z]{3}", text)


@pytest.mark.parametrize("grammar", GRAMMARS, ids=lambda grammar: grammar.kind)
def test_random_answers_match(compiler: GrammarCompiler, grammar: Grammar) -> None:
    chance = random.Random(5)
    texts = set()
    for _ in range(30):
        text = walk(compiler.compile(grammar).result(), chance)
        check(grammar, text)
        texts.add(text)
    assert len(texts) > 3


def test_special_tokens_never_match(compiler: GrammarCompiler) -> None:
    matcher = compiler.compile(Grammar(GrammarKind.REGEX, "(.|\n)*")).result()
    special = {token for token in range(VOCAB_SIZE) if TOKENIZER.is_special(token)}
    assert special & set(allowed(matcher)) == set(TOKENIZER.stop_ids), "the end may always come"


def test_matchers_of_one_grammar_do_not_share_their_place(compiler: GrammarCompiler) -> None:
    grammar = Grammar(GrammarKind.REGEX, "abc")
    first, second = (compiler.compile(grammar).result() for _ in range(2))
    for token in TOKENIZER.encode_text("abc"):
        first.accept(token)
    assert first.complete
    assert not second.complete


def test_a_token_that_does_not_fit_is_a_failure_of_the_matcher_alone(
    compiler: GrammarCompiler,
) -> None:
    matcher = compiler.compile(Grammar(GrammarKind.REGEX, "abc")).result()
    (wrong,) = TOKENIZER.encode_text("z")
    matcher.accept(wrong)
    assert matcher.failed
    assert not compiler.compile(Grammar(GrammarKind.REGEX, "abc")).result().failed


@pytest.mark.parametrize(
    "grammar",
    [
        Grammar(GrammarKind.JSON_SCHEMA, "no json"),
        Grammar(GrammarKind.JSON_SCHEMA, '{"type": "nothing"}'),
        Grammar(GrammarKind.REGEX, "(ab"),
        Grammar(GrammarKind.LARK, "start: missing"),
    ],
)
def test_what_is_no_grammar_is_an_exception(compiler: GrammarCompiler, grammar: Grammar) -> None:
    assert compiler.compile(grammar).exception() is not None
