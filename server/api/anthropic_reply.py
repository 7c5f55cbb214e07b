"""How an answer looks in Anthropic's shape: one message, the events of its making, and failures."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec

from server.api.answer import Answer, News
from server.api.blocks import Begin, Block, Blocks, CallBlock, Change, Piece
from server.errors import ApiError

ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def error_body(failure: ApiError, request_id: str) -> dict[str, Any]:
    other = "api_error" if failure.status >= 500 else "invalid_request_error"
    kind = ERROR_TYPES.get(failure.status, other)
    error = {"type": kind, "message": failure.message}
    return {"type": "error", "error": error, "request_id": request_id}


class AnthropicReply:
    """The reply to one request.

    Args:
        model: the name that answers carry.
        with_tools: the answer may hold calls.
    """

    def __init__(self, answer: Answer, *, model: str, with_tools: bool, request_id: str) -> None:
        self._answer = answer
        self._model = model
        self._request_id = request_id
        self._id = f"msg_{uuid.uuid4().hex}"
        self._blocks = Blocks(with_tools=with_tools, id_prefix="toolu")
        self._begun = 0

    def body(self) -> dict[str, Any]:
        self._blocks.push(self._answer.choices[0].text)
        self._blocks.finish()
        content = [_whole(block) for block in self._blocks.all]
        return self._message(content) | self._stop() | {"usage": self._usage()}

    def begin(self) -> bytes:
        message = self._message([]) | {"stop_reason": None, "stop_sequence": None}
        message["usage"] = self._usage()
        return _event("message_start", message=message) + _event("ping")

    def news(self, news: News) -> bytes:
        changes = self._blocks.push(news.text)
        if news.finished:
            changes += self._blocks.finish()
        return b"".join(map(self._frame, changes))

    def end(self) -> bytes:
        delta = _event("message_delta", delta=self._stop(), usage=self._usage())
        return delta + _event("message_stop")

    def failure(self, failure: ApiError) -> bytes:
        body = error_body(failure, self._request_id)
        return b"event: error\ndata: " + msgspec.json.encode(body) + b"\n\n"

    def _message(self, content: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": content,
        }

    def _stop(self) -> dict[str, Any]:
        choice = self._answer.choices[0]
        if choice.finish_reason == "length":
            return {"stop_reason": "max_tokens", "stop_sequence": None}
        if isinstance(choice.stop_reason, str):
            return {"stop_reason": "stop_sequence", "stop_sequence": choice.stop_reason}
        called = any(isinstance(block, CallBlock) for block in self._blocks.all)
        return {"stop_reason": "tool_use" if called else "end_turn", "stop_sequence": None}

    def _usage(self) -> dict[str, Any]:
        cached = self._answer.cached_tokens
        return {
            "input_tokens": self._answer.prompt_tokens - cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached,
            "output_tokens": self._answer.output_tokens,
        }

    def _frame(self, change: Change) -> bytes:
        if isinstance(change, Begin):
            self._begun += 1
            return _event(
                "content_block_start", index=self._begun - 1, content_block=_empty(change.block)
            )
        index = self._begun - 1
        if not isinstance(change, Piece):
            return _event("content_block_stop", index=index)
        if isinstance(change.block, CallBlock):
            delta = {"type": "input_json_delta", "partial_json": change.text}
        else:
            delta = {"type": "text_delta", "text": change.text}
        return _event("content_block_delta", index=index, delta=delta)


def _empty(block: Block) -> dict[str, Any]:
    if isinstance(block, CallBlock):
        return {"type": "tool_use", "id": block.id, "name": block.name, "input": {}}
    return {"type": "text", "text": ""}


def _whole(block: Block) -> dict[str, Any]:
    if isinstance(block, CallBlock):
        return _empty(block) | {"input": _decoded(block.arguments)}
    return {"type": "text", "text": block.text}


def _decoded(arguments: str) -> Any:
    """Arguments that the length has cut are none."""
    try:
        return msgspec.json.decode(arguments)
    except msgspec.DecodeError:
        return {}


def _event(kind: str, **fields: Any) -> bytes:
    data = msgspec.json.encode({"type": kind, **fields})
    return f"event: {kind}\ndata: ".encode() + data + b"\n\n"
