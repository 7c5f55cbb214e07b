"""A request for a response as a chat request, item by item.

Items of the conversation are kept as JSON objects in OpenAI's shape, so what was stored with a
former response and what a client sends now are read by the same code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from server.api.paths import ChatBody
from server.api.response_request import (
    FunctionTool,
    InputItem,
    ResponseRequest,
    ResponseToolChoice,
    TextFormat,
)
from server.api.schemas import GenerationRequest
from server.errors import ApiError, invalid

MODES = ("none", "auto", "required")


def chat_body(request: ResponseRequest, items: Sequence[tuple[str, InputItem]]) -> ChatBody:
    """The chat request that means the same.

    Args:
        items: of the conversation, former responses included, each with its path in the request.

    Raises:
        ApiError: 400 for an item, a tool or a format that this server does not know.
    """
    chat = ChatBody(_fields(request), dict(PATHS))
    for index in range(len(request.tools or ())):
        chat.paths[f"tools[{index}].function"] = f"tools[{index}]"
    if request.instructions is not None:
        chat.messages.append({"role": "system", "content": request.instructions})
        chat.paths["messages[0].content"] = "instructions"
    for path, item in items:
        _add_item(chat, item, path)
    return chat


PATHS = {
    "messages": "input",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "response_format.json_schema": "text.format",
    "logprobs": "include",
    "tool_choice.function": "tool_choice",
    "tool_choice.allowed_tools": "tool_choice",
}


def _fields(request: ResponseRequest) -> dict[str, Any]:
    shared = set(GenerationRequest.model_fields)
    fields = request.model_dump(include=shared, exclude_none=True, by_alias=True)
    fields |= {
        "max_completion_tokens": request.max_output_tokens,
        "tools": [_tool(tool, index) for index, tool in enumerate(request.tools or ())],
        "tool_choice": _tool_choice(request.tool_choice),
        "parallel_tool_calls": request.parallel_tool_calls,
        "response_format": _format(request.text.format if request.text else None),
    }
    if request.with_logprobs:
        fields |= {"logprobs": True, "top_logprobs": request.top_logprobs}
    return {name: value for name, value in fields.items() if value is not None}


def _tool(tool: FunctionTool, index: int) -> dict[str, Any]:
    if tool.type != "function":
        raise ApiError(
            400,
            "unsupported_value",
            "Unsupported value: this server has no built-in tools, only functions.",
            param=f"tools[{index}].type",
        )
    if tool.name is None:
        raise _missing(f"tools[{index}].name")
    function = tool.model_dump(
        include={"name", "description", "parameters", "strict"}, exclude_none=True
    )
    return {"type": "function", "function": function}


def _tool_choice(choice: ResponseToolChoice | None) -> Any:
    if choice is None or choice.type in MODES:
        return choice and choice.type
    if choice.type == "function":
        if choice.name is None:
            raise _missing("tool_choice.name")
        return {"type": "function", "function": {"name": choice.name}}
    if choice.type == "allowed_tools":
        allowed = [
            {"type": tool.type, "function": {"name": tool.name}} for tool in choice.tools or ()
        ]
        return {
            "type": "allowed_tools",
            "allowed_tools": {"mode": choice.mode or "auto", "tools": allowed},
        }
    raise ApiError(
        400,
        "unsupported_value",
        "Unsupported value: 'tool_choice' must be none, auto, required, a function or "
        "allowed_tools.",
        param="tool_choice",
    )


def _format(wanted: TextFormat | None) -> dict[str, Any] | None:
    if wanted is None:
        return None
    if wanted.type != "json_schema":
        return {"type": wanted.type}
    for name, value in (("name", wanted.name), ("schema", wanted.schema_)):
        if value is None:
            raise _missing(f"text.format.{name}")
    return {
        "type": "json_schema",
        "json_schema": {"name": wanted.name, "schema": wanted.schema_},
    }


def _add_item(chat: ChatBody, item: InputItem, path: str) -> None:
    if item.type == "message":
        _add_message(chat, item, path)
    elif item.type == "function_call":
        _add_call(chat, item, path)
    elif item.type == "function_call_output":
        _require(item, ("call_id", "output"), path)
        chat.paths[f"messages[{len(chat.messages)}].content"] = f"{path}.output"
        _refuse_videos(item.output, f"{path}.output")
        chat.messages.append({"role": "tool", "tool_call_id": item.call_id, "content": item.output})
    elif item.type != "reasoning":  # a thought of another model, which this one could not read
        raise ApiError(
            400,
            "unsupported_value",
            "Unsupported value: items must be of the type message, function_call or "
            "function_call_output.",
            param=f"{path}.type",
        )


def _add_message(chat: ChatBody, item: InputItem, path: str) -> None:
    _require(item, ("role", "content"), path)
    _refuse_videos(item.content, f"{path}.content")
    chat.paths[f"messages[{len(chat.messages)}]"] = path
    chat.messages.append({"role": item.role, "content": item.content})


def _add_call(chat: ChatBody, item: InputItem, path: str) -> None:
    """Calls belong to the assistant's message in front of them, where there is one."""
    _require(item, ("call_id", "name", "arguments"), path)
    if not chat.messages or chat.messages[-1]["role"] != "assistant":
        chat.messages.append({"role": "assistant", "content": None})
    calls = chat.messages[-1].setdefault("tool_calls", [])
    where = f"messages[{len(chat.messages) - 1}].tool_calls[{len(calls)}]"
    chat.paths |= {where: path, f"{where}.function": path}
    function = {"name": item.name, "arguments": item.arguments}
    calls.append({"id": item.call_id, "type": "function", "function": function})


def _refuse_videos(content: Any, path: str) -> None:
    """OpenAI's wire has no videos, and what is stored with a response has no place for one."""
    for index, part in enumerate(content if isinstance(content, list) else ()):
        if isinstance(part, dict) and part.get("type") == "video_url":
            raise ApiError(
                400,
                "unsupported_value",
                "Unsupported value: videos are taken by /v1/chat/completions only.",
                param=f"{path}[{index}].type",
            )


def _require(item: InputItem, names: Sequence[str], path: str) -> None:
    for name in names:
        if getattr(item, name) is None:
            raise _missing(f"{path}.{name}")


def _missing(path: str) -> ApiError:
    return invalid(
        f"Missing required parameter: '{path}'.", param=path, code="missing_required_parameter"
    )
