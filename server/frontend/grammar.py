"""What an answer must match, as a grammar. Whether it can be built is `grammar_check`'s question.

White space between the tokens of JSON is a space, or a newline and its indentation: compact or
pretty as models write it, but never endless.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from llguidance.gbnf_to_lark import any_to_lark

from server.errors import invalid
from server.frontend.regex_size import SIZE_MAX, written_out
from server.frontend.schema_check import check_schema, objection
from server.messages import Grammar, GrammarKind

TEXT_BYTES_MAX = 64 * 1024
REGEX_CHARS_MAX = 4096

JSON_OPTIONS = {"whitespace_pattern": r"( |\n {0,32})", "coerce_one_of": True}
"""`oneOf` is read as `anyOf`: which alternative an unfinished answer will match is not known."""

LARK_EXPRESSION = re.compile(r"/((?:[^/\\\n]|\\.)+)(/?)")
"""Also one that is never closed: no other begins inside it, so a text is read once."""

ANY_OBJECT: Mapping[str, Any] = {"type": "object"}


def json_schema_text(schema: Mapping[str, Any], param: str) -> str:
    """A schema as the engine and `%json` in a grammar take it.

    Raises:
        ApiError: 400 `invalid_schema` that names the keyword and its JSON pointer.
    """
    try:
        text = json.dumps({**schema, "x-guidance": JSON_OPTIONS}, ensure_ascii=False)
    except RecursionError:
        raise objection("nesting", "#", "is too deep", param) from None
    check_size(text, param)
    check_schema(schema, param)
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
    _check_repeats([pattern], param)
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
    check_size(text, param)
    return Grammar(GrammarKind.LARK, text)


def free_grammar(text: str, param: str) -> Grammar:
    """A grammar that the client wrote, in Lark's notation or in llama.cpp's GBNF."""
    check_size(text, param)
    expressions = [body for body, end in LARK_EXPRESSION.findall(text) if end]
    if any(len(expression) > REGEX_CHARS_MAX for expression in expressions):
        raise invalid(
            f"Invalid grammar in '{param}': expected expressions of at most {REGEX_CHARS_MAX} "
            "characters.",
            param=param,
            code="invalid_grammar",
        )
    _check_repeats(expressions, param)
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


def check_size(text: str, param: str) -> None:
    """Raises:
    ApiError: 400 `invalid_schema`; no grammar is made of so much.
    """
    if len(text) > TEXT_BYTES_MAX or len(text.encode()) > TEXT_BYTES_MAX:
        raise invalid(
            f"Invalid '{param}': expected at most {TEXT_BYTES_MAX} bytes.",
            param=param,
            code="invalid_schema",
        )


def _check_repeats(expressions: Sequence[str], param: str) -> None:
    """Some that can be built cannot be followed."""
    if any(written_out(expression) > SIZE_MAX for expression in expressions):
        raise invalid(
            f"Invalid grammar in '{param}': an expression with its repeats written out is longer "
            f"than {SIZE_MAX}.",
            param=param,
            code="invalid_grammar",
        )
