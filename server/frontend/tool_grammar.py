"""The grammar of an answer that may or must call tools: names and arguments are always valid.

Where calls are optional, text is free until `<tool_call>` has been written, and strict from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from server.frontend.grammar import json_schema_text, literal
from server.frontend.schema_check import objection
from server.frontend.tools import CALL_BEGIN, CALL_END, Tool
from server.messages import Grammar, GrammarKind

CALLS_MAX = 16
"""Calls in one answer at most, so that one that must be calls has an end."""


def tool_grammar(
    tools: Sequence[Tool],
    *,
    params: Sequence[str],
    required: bool,
    parallel: bool,
    answer_schema: Mapping[str, Any] | None = None,
    answer_param: str = "response_format",
) -> Grammar:
    """
    Args:
        tools: those that may be called.
        params: where in the request the schema of each stands.
        required: the answer is calls and nothing else.
        parallel: more than one call is allowed.
        answer_schema: what the answer must match when it calls no tool.

    Raises:
        ApiError: 400 `invalid_schema`; also where arguments would be no object, which no call has.
    """
    more = f"({literal(chr(10) + CALL_BEGIN)} call){{0,{CALLS_MAX - 1}}}" if parallel else ""
    rules = []
    if required:
        rules.append(f"start: {literal(CALL_BEGIN)} call {more}")
    elif answer_schema is not None:
        schema = json_schema_text(answer_schema, answer_param)
        rules.append(f"start: answer | {literal(CALL_BEGIN)} call {more}")
        rules.append(f"answer: %json {schema}")
    else:
        rules.append(f"start: TEXT | head call {more}")
        rules.append(r"TEXT: /(.|\n)*/")
        rules.append(f"head[lazy]: TEXT {literal(CALL_BEGIN)}")
    rules.append("call: " + " | ".join(f"call_{index}" for index in range(len(tools))))
    for index, (tool, param) in enumerate(zip(tools, params, strict=True)):
        begin = f'\n{{"name": "{tool.name}", "arguments": '
        rules.append(f"call_{index}: {literal(begin)} arguments_{index} {literal(_END)}")
        schema = json_schema_text(_object(tool.parameters, param), param)
        rules.append(f"arguments_{index}: %json {schema}")
    return Grammar(GrammarKind.LARK, "\n".join(rules) + "\n")


_END = "}\n" + CALL_END


def _object(parameters: Mapping[str, Any], param: str) -> Mapping[str, Any]:
    """Arguments are an object, whatever a schema leaves open."""
    if parameters.get("type", "object") != "object":
        raise objection("type", "#", "is not 'object', as arguments of a function are", param)
    return {**parameters, "type": "object"}
