"""Tools in the Hermes format: how they are shown to the model, and how calls and results are
written in a conversation. All of it is text; none of it can become a control token.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

CALL_BEGIN = "<tool_call>"
CALL_END = "</tool_call>"
RESULT_BEGIN = "<tool_response>"
RESULT_END = "</tool_response>"

INSTRUCTIONS = """You may call functions to answer the user. Their signatures are within \
<tools></tools>, one per line:
<tools>
{tools}
</tools>
For each call return a JSON object with the function's name and its arguments within \
<tool_call></tool_call>:
<tool_call>
{{"name": <function name>, "arguments": <arguments as an object>}}
</tool_call>
Results are returned to you within <tool_response></tool_response>."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call."""

    name: str
    parameters: Mapping[str, Any]
    """JSON schema of the arguments."""
    description: str | None = None


def system_block(tools: Iterable[Tool]) -> str:
    """What the system message says about the tools."""
    return INSTRUCTIONS.format(tools="\n".join(map(_signature, tools)))


def _signature(tool: Tool) -> str:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    function["parameters"] = tool.parameters
    return json.dumps({"type": "function", "function": function}, ensure_ascii=False)


def call_text(name: str, arguments: str) -> str:
    """A call as the model writes it.

    Args:
        arguments: JSON; what is none is written as a JSON string.
    """
    try:
        json.loads(arguments or "{}")
        value = arguments.strip() or "{}"
    except (ValueError, RecursionError):
        value = json.dumps(arguments, ensure_ascii=False)
    return f'{CALL_BEGIN}\n{{"name": {json.dumps(name)}, "arguments": {value}}}\n{CALL_END}'
