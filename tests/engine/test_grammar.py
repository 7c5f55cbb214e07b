from __future__ import annotations

import json
import random
import re
import time

import pytest

from server.engine.grammar import GrammarCompiler, GrammarMatcher
from server.engine.request import Matcher
from server.frontend.matchers import matcher_factory
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
    return GrammarCompiler(matcher_factory(TOKENIZER, VOCAB_SIZE))


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


class Clock:
    """Time that passes while the matcher works, as the test says."""

    def __init__(self) -> None:
        self.step_s = 0.0
        self._now_s = 0.0

    def __call__(self) -> float:
        self._now_s += self.step_s
        return self._now_s


def test_a_matcher_that_takes_long_fails_and_one_that_is_quick_earns_time() -> None:
    clock = Clock()
    factory = matcher_factory(TOKENIZER, VOCAB_SIZE)
    matcher = GrammarMatcher(factory.make(Grammar(GrammarKind.REGEX, "(a|b)*")), clock)
    (token,) = TOKENIZER.encode_text("a")

    def steps(count: int, step_s: float) -> None:
        clock.step_s = step_s
        for _ in range(count):
            matcher.mask()
            matcher.accept(token)

    steps(1000, 0.0001)
    assert not matcher.failed
    steps(1, 2.0)
    assert not matcher.failed, "what quick steps have left over is there for a slow one"
    steps(4, 2.0)
    assert matcher.failed


@pytest.mark.parametrize(
    "rules",
    [
        's: s s s s s | "a" | "b"?',
        "s: "
        + " | ".join(f"r{i} s r{i * 7 % 60}" for i in range(60))
        + ' | "a"\n'
        + "\n".join(f'r{i}: "a"* s? "b"?' for i in range(60)),
    ],
)
def test_an_ambiguous_grammar_ends_at_the_limits_and_not_at_the_end_of_time(rules: str) -> None:
    factory = matcher_factory(TOKENIZER, VOCAB_SIZE)
    began_s = time.thread_time()
    try:
        matcher = GrammarMatcher(factory.make(Grammar(GrammarKind.LARK, f"start: s\n{rules}")))
    except ValueError:
        return
    (token,) = TOKENIZER.encode_text("a")
    while not matcher.failed and not matcher.complete:
        matcher.mask()
        matcher.accept(token)
    assert time.thread_time() - began_s < 10
