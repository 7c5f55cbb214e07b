"""What an answer must match, as a grammar that is checked before the engine sees it.

The first half writes grammars, the second says whether they can be built. White space between the
tokens of JSON is a space, or a newline and its indentation: compact or pretty as models write it,
but never endless.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from llguidance import LLMatcher, LLParserLimits
from llguidance.gbnf_to_lark import any_to_lark

from server.errors import invalid
from server.frontend.schema_check import check_schema, objection
from server.messages import Grammar, GrammarKind

TEXT_BYTES_MAX = 64 * 1024
REGEX_CHARS_MAX = 4096
VERDICTS_KEPT = 256

JSON_OPTIONS = {"whitespace_pattern": r"( |\n {0,32})", "coerce_one_of": True}
"""`oneOf` is read as `anyOf`: which alternative an unfinished answer will match is not known."""

ANY_OBJECT: Mapping[str, Any] = {"type": "object"}

REASONS = {
    "look-around": "look-around is not supported",
    "regex parse error": "a regular expression is not valid",
    "Unsatisfiable": "no value satisfies it",
    "does not exist": "a reference leads nowhere",
    "too large": "it is too large",
    "Unable to determine": "it is too large",
    "fuel": "it is too large",
}
"""Our words for what the grammar library says, by words of its own."""


def json_schema_text(schema: Mapping[str, Any], param: str) -> str:
    """A schema as the engine and `%json` in a grammar take it.

    Raises:
        ApiError: 400 `invalid_schema` that names the keyword and its JSON pointer.
    """
    check_schema(schema, param)
    try:
        text = json.dumps({**schema, "x-guidance": JSON_OPTIONS}, ensure_ascii=False)
    except RecursionError:
        raise objection("nesting", "#", "is too deep", param) from None
    _check_size(text, param)
    return text


def json_schema_grammar(schema: Mapping[str, Any], param: str) -> Grammar:
    """Raises: as `json_schema_text`."""
    return Grammar(GrammarKind.JSON_SCHEMA, json_schema_text(schema, param))


def regex_grammar(pattern: str, param: str) -> Grammar:
    """The whole answer matches `pattern`, without look-around and back references."""
    if len(pattern) > REGEX_CHARS_MAX:
        raise invalid(
            f"Invalid '{param}': expected at most {REGEX_CHARS_MAX} characters.",
            param=param,
            code="string_above_max_length",
        )
    return Grammar(GrammarKind.REGEX, pattern)


def choice_grammar(choices: Sequence[str], param: str) -> Grammar:
    """The answer is one of the texts."""
    for index, choice in enumerate(choices):
        if not choice:
            raise invalid(
                f"Invalid '{param}': a choice must not be empty.",
                param=f"{param}[{index}]",
                code="empty_string",
            )
    text = "start: " + " | ".join(map(literal, choices))
    _check_size(text, param)
    return Grammar(GrammarKind.LARK, text)


def free_grammar(text: str, param: str) -> Grammar:
    """A grammar that the client wrote, in Lark's notation or in llama.cpp's GBNF."""
    _check_size(text, param)
    # The converter takes seconds over thousands of empty lines.
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    try:
        return Grammar(GrammarKind.LARK, any_to_lark("\n".join(lines)))
    except Exception:  # the converter raises whatever its parser meets
        raise invalid(
            "Invalid grammar: it is neither in Lark's notation nor in GBNF.",
            param=param,
            code="invalid_grammar",
        ) from None


def literal(text: str) -> str:
    """A string literal of a Lark grammar."""
    return json.dumps(text, ensure_ascii=False)


class GrammarChecker:
    """Says whether grammars can be built, and remembers it. Safe to use from several threads.

    Building takes milliseconds, and tenths of a second for the worst that the limits let through.
    """

    def __init__(self) -> None:
        self._verdict = functools.lru_cache(maxsize=VERDICTS_KEPT)(_verdict)

    def check(self, grammar: Grammar, param: str) -> None:
        """Raises:
        ApiError: 400; the grammar cannot be built.
        """
        if reason := self._verdict(grammar.kind, grammar.text):
            code = "invalid_schema"
            what = "schema"
            if grammar.kind is not GrammarKind.JSON_SCHEMA:
                code, what = "invalid_grammar", "grammar"
            raise invalid(f"Invalid {what} in '{param}': {reason}.", param=param, code=code)


def _verdict(kind: GrammarKind, text: str) -> str:
    """Why the grammar cannot be built; empty when it can."""
    limits = LLParserLimits(
        initial_lexer_fuel=200_000, max_grammar_size=200_000, verbose_errors=False
    )
    failed, said = LLMatcher.validate_grammar_with_warnings(_compiled(kind, text), limits=limits)
    if not failed:
        return ""
    known = (reason for words, reason in REASONS.items() if words in said[0])
    return next(known, "it is not valid")


def _compiled(kind: GrammarKind, text: str) -> str:
    if kind is GrammarKind.JSON_SCHEMA:
        return str(LLMatcher.grammar_from_json_schema(text))
    if kind is GrammarKind.REGEX:
        return str(LLMatcher.grammar_from_regex(text))
    return str(LLMatcher.grammar_from_lark(text))


def _check_size(text: str, param: str) -> None:
    if len(text.encode()) > TEXT_BYTES_MAX:
        raise invalid(
            f"Invalid '{param}': expected at most {TEXT_BYTES_MAX} bytes.",
            param=param,
            code="invalid_schema",
        )
