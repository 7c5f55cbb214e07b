"""A request in Anthropic's shape as a chat request, block by block."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

import msgspec

from server.api.anthropic_request import (
    AnthropicBlock,
    AnthropicMessage,
    AnthropicTool,
    AnthropicToolChoice,
    CountRequest,
    MessagesRequest,
)
from server.api.paths import ChatBody
from server.errors import ApiError, invalid

SKIPPED = ("thinking", "redacted_thinking")
CHOICES = {"auto": "auto", "any": "required", "none": "none"}
PATHS = {
    "stop": "stop_sequences",
    "tool_choice.function": "tool_choice",
    "response_format.json_schema": "output_config.format",
}


def chat_body(request: CountRequest) -> ChatBody:
    """The chat request that means the same.

    Raises:
        ApiError: 400 for a block or a tool that this server does not know.
    """
    chat = ChatBody({}, dict(PATHS))
    if request.system is not None:
        _add(chat, "system", _parts(request.system, "system"))
    call_ids: set[str | None] = set()
    for index, message in enumerate(request.messages):
        _add_message(chat, message, f"messages[{index}].content", call_ids)
    fields = {
        "model": request.model,
        "tools": [_tool(chat, tool, index) for index, tool in enumerate(request.tools or ())],
        "tool_choice": _tool_choice(request.tool_choice),
        "parallel_tool_calls": _parallel(request.tool_choice),
        "response_format": _format(request),
        # A last message of the assistant is the beginning of the answer.
        "continue_final_message": _is_open(chat.messages) or None,
        **_sampling(request),
    }
    chat.fields = {name: value for name, value in fields.items() if value is not None}
    return chat


def _sampling(request: CountRequest) -> dict[str, Any]:
    if not isinstance(request, MessagesRequest):
        return {}
    return {
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "stop": request.stop_sequences,
    }


def _is_open(messages: Sequence[dict[str, Any]]) -> bool:
    last = messages[-1]
    return last["role"] == "assistant" and "tool_calls" not in last


def _tool(chat: ChatBody, tool: AnthropicTool, index: int) -> dict[str, Any]:
    if tool.type not in (None, "custom"):
        raise ApiError(
            400,
            "unsupported_value",
            "Unsupported value: this server has no built-in tools, only functions.",
            param=f"tools[{index}].type",
        )
    chat.paths[f"tools[{index}].function"] = f"tools[{index}]"
    chat.paths[f"tools[{index}].function.parameters"] = f"tools[{index}].input_schema"
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.input_schema,
    }
    return {"type": "function", "function": function}


def _tool_choice(choice: AnthropicToolChoice | None) -> Any:
    if choice is None:
        return None
    if choice.type == "tool":
        return {"type": "function", "function": {"name": choice.name}}
    return CHOICES[choice.type]


def _parallel(choice: AnthropicToolChoice | None) -> bool | None:
    if choice is None or choice.disable_parallel_tool_use is None:
        return None
    return not choice.disable_parallel_tool_use


def _format(request: CountRequest) -> dict[str, Any] | None:
    wanted = request.output_config.format if request.output_config else None
    if wanted is None:
        return None
    return {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": wanted.schema_},
    }


Part = tuple[str, dict[str, Any]]
"""A part of a chat message, and the path of the block that it comes from."""


def _add_message(
    chat: ChatBody, message: AnthropicMessage, path: str, call_ids: set[str | None]
) -> None:
    """One message, with the results of calls in front of it as messages of their own.

    Args:
        call_ids: of the calls in the messages before it; this one's are added.
    """
    said: list[AnthropicBlock] = []
    paths: list[str] = []
    calls: list[dict[str, Any]] = []
    results = 0
    for index, block in enumerate(message.content):
        here = f"{path}[{index}]"
        if block.type == "tool_result":
            results += 1
            _add_result(chat, block, here, call_ids)
        elif block.type == "tool_use":
            calls.append(_call(block, here))
        elif block.type not in SKIPPED:
            said.append(block)
            paths.append(here)
    if said or calls or not results:
        parts = [_part(block, here) for block, here in zip(said, paths, strict=True)]
        _add(chat, message.role, parts, calls)
    call_ids.update(call["id"] for call in calls)


def _add_result(
    chat: ChatBody, block: AnthropicBlock, path: str, call_ids: Container[str | None]
) -> None:
    parts = _parts(block.content or (), f"{path}.content")
    _add(chat, "tool", parts)
    call_id = _required(block.tool_use_id, f"{path}.tool_use_id")
    if call_id not in call_ids:
        raise invalid(
            f"Invalid '{path}.tool_use_id': no 'tool_use' block before it has this id.",
            param=f"{path}.tool_use_id",
        )
    chat.messages[-1]["tool_call_id"] = call_id


def _add(
    chat: ChatBody, role: str, parts: Sequence[Part], calls: Sequence[dict[str, Any]] = ()
) -> None:
    for index, (path, _) in enumerate(parts):
        here = f"messages[{len(chat.messages)}].content[{index}]"
        chat.paths[here] = path
        chat.paths[f"{here}.image_url.url"] = f"{path}.source"
    message: dict[str, Any] = {"role": role, "content": [part for _, part in parts]}
    if calls:
        message["tool_calls"] = calls
    chat.messages.append(message)


def _parts(blocks: Sequence[AnthropicBlock], path: str) -> list[Part]:
    return [_part(block, f"{path}[{index}]") for index, block in enumerate(blocks)]


def _part(block: AnthropicBlock, path: str) -> Part:
    if block.type == "text":
        return path, {"type": "text", "text": _required(block.text, f"{path}.text")}
    if block.type != "image":
        raise ApiError(
            400,
            "unsupported_value",
            f"Unsupported value: '{path}.type' must be text, image, tool_use or tool_result.",
            param=f"{path}.type",
        )
    source = _required(block.source, f"{path}.source")
    if source.type == "base64":
        data = _required(source.data, f"{path}.source.data")
        url = f"data:{source.media_type or 'image/png'};base64,{data}"
    else:
        url = _required(source.url, f"{path}.source.url")
    return path, {"type": "image_url", "image_url": {"url": url}}


def _call(block: AnthropicBlock, path: str) -> dict[str, Any]:
    function = {
        "name": _required(block.name, f"{path}.name"),
        "arguments": msgspec.json.encode(block.input or {}).decode(),
    }
    return {"id": block.id, "type": "function", "function": function}


def _required(value: Any, path: str) -> Any:
    if value is None:
        raise invalid(
            f"Missing required parameter: '{path}'.", param=path, code="missing_required_parameter"
        )
    return value
