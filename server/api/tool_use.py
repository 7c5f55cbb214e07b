"""What a request says about tools, old and new fields alike, as one value.

`functions` and `function_call` are translated to tools here; `chat_message` translates the answer
back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from server.api.explain import missing
from server.api.schemas import ChatRequest
from server.api.tool_schemas import AllowedTools, Function, ToolChoice, ToolReference
from server.api.tool_schemas import Tool as SentTool
from server.errors import ApiError, invalid
from server.frontend.tools import Tool

NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}


@dataclass(frozen=True, slots=True)
class ToolUse:
    """Tools that the answer may or must call."""

    shown: tuple[Tool, ...]
    """What the prompt tells of."""
    callable: tuple[Tool, ...]
    """What may be called."""
    required: bool
    """The answer is calls and nothing else."""
    named: bool
    """The request named the one function to call."""
    parallel: bool
    """More than one call is allowed."""
    legacy: bool
    """The answer carries `function_call` instead of `tool_calls`."""
    param: str
    """Path of the tools in the request."""

    @property
    def schema_params(self) -> list[str]:
        """Where in the request the schemas of the callable tools stand."""
        inner = "parameters" if self.legacy else "function.parameters"
        names = {tool.name for tool in self.callable}
        sent = (index for index, tool in enumerate(self.shown) if tool.name in names)
        return [f"{self.param}[{index}].{inner}" for index in sent]


def read_tool_use(request: ChatRequest) -> ToolUse | None:
    """None when no tools were sent or none may be called.

    Raises:
        ApiError: 400 for a tool that is no function, or a choice of one that was not sent.
    """
    choice = request.tool_choice.type if request.tool_choice else "auto"
    call = request.function_call.name if request.function_call else "auto"
    if request.tools and request.functions:
        raise invalid("'functions' is not allowed with 'tools'. Send 'tools'.", param="functions")
    # A choice that chooses among nothing is harmless, one among the other field's entries is not.
    harmless = ("auto",) if request.tools or request.functions else ("none", "auto")
    if not request.tools and choice not in harmless:
        raise invalid("'tool_choice' is only allowed with 'tools'.", param="tool_choice")
    if not request.functions and call not in harmless:
        raise invalid("'function_call' is only allowed with 'functions'.", param="function_call")
    if request.tools:
        return _read_tools(request, request.tools)
    return _read_functions(request, request.functions) if request.functions else None


def _read_tools(request: ChatRequest, sent: Sequence[SentTool]) -> ToolUse | None:
    tools = tuple(_read_tool(tool, f"tools[{index}]") for index, tool in enumerate(sent))
    _check_distinct(tools, "tools[{}].function.name")
    choice = request.tool_choice or ToolChoice(type="auto")
    if choice.type == "none":
        return None
    required, callables, named = choice.type == "required", tools, False
    if choice.type == "function":
        if choice.function is None:
            raise missing("tool_choice.function")
        callables = _find(tools, [choice.function.name], "tool_choice.function.name")
        required = named = True
    elif choice.type == "allowed_tools":
        allowed = choice.allowed_tools
        if allowed is None:
            raise missing("tool_choice.allowed_tools")
        callables, required = _allowed(tools, allowed), allowed.mode == "required"
    elif choice.type not in ("auto", "required"):
        raise _unsupported_type("tool_choice.type", "function, allowed_tools")
    parallel = not named and request.parallel_tool_calls is not False
    return ToolUse(tools, callables, required, named, parallel, legacy=False, param="tools")


def _allowed(tools: tuple[Tool, ...], allowed: AllowedTools) -> tuple[Tool, ...]:
    names = [_name_of(reference, index) for index, reference in enumerate(allowed.tools)]
    return _find(tools, names, "tool_choice.allowed_tools.tools")


def _name_of(reference: ToolReference, index: int) -> str:
    param = f"tool_choice.allowed_tools.tools[{index}]"
    if reference.type != "function":
        raise _unsupported_type(f"{param}.type", "function")
    if reference.function is None:
        raise missing(f"{param}.function")
    return reference.function.name


def _read_functions(request: ChatRequest, functions: Sequence[Function]) -> ToolUse | None:
    tools = tuple(map(_tool, functions))
    _check_distinct(tools, "functions[{}].name")
    name = request.function_call.name if request.function_call else "auto"
    if name == "none":
        return None
    named = name != "auto"
    callables = _find(tools, [name], "function_call.name") if named else tools
    return ToolUse(tools, callables, named, named, parallel=False, legacy=True, param="functions")


def _read_tool(tool: SentTool, param: str) -> Tool:
    if tool.type != "function":
        raise _unsupported_type(f"{param}.type", "function")
    if tool.function is None:
        raise missing(f"{param}.function")
    return _tool(tool.function)


def _tool(function: Function) -> Tool:
    return Tool(function.name, function.parameters or NO_PARAMETERS, function.description)


def _check_distinct(tools: Sequence[Tool], path: str) -> None:
    seen: set[str] = set()
    for index, tool in enumerate(tools):
        if tool.name in seen:
            raise invalid(f"The name '{tool.name}' is given twice.", param=path.format(index))
        seen.add(tool.name)


def _find(tools: Sequence[Tool], names: Sequence[str], param: str) -> tuple[Tool, ...]:
    by_name = {tool.name: tool for tool in tools}
    for name in names:
        if name not in by_name:
            raise invalid(f"Invalid value for '{param}': there is no such function.", param=param)
    return tuple(tool for tool in tools if tool.name in names)


def _unsupported_type(param: str, types: str) -> ApiError:
    return ApiError(
        400,
        "unsupported_value",
        f"Unsupported value: '{param}' must be one of {types}.",
        param=param,
    )
