"""The message of one choice while it grows: text, and calls of tools where there may be some.

Plain responses and streams read the same events, so they cannot differ. In a stream a call's id and
name come once, and the pieces of its arguments joined are the arguments.
"""

from __future__ import annotations

import uuid
from typing import Any

from server.api.tool_use import ToolUse
from server.frontend.tool_parser import ArgumentsPiece, CallBegin, Event, TextPiece, ToolParser
from server.messages import FinishReason


class ChatMessage:
    """Feed it with `push`, end it with `finish`; both return OpenAI's deltas.

    Args:
        tools: what may be called.
        echo: text that stands before the answer's own.
    """

    def __init__(self, tools: ToolUse | None = None, echo: str = "") -> None:
        self._pieces = [echo]
        self.calls: list[dict[str, Any]] = []
        """As OpenAI's `tool_calls`."""
        self._tools = tools
        self._parser = ToolParser() if tools else None

    @property
    def content(self) -> str:
        return "".join(self._pieces)

    @property
    def is_text(self) -> bool:
        """No calls are looked for: what is pushed is what comes out."""
        return self._parser is None

    def push(self, text: str) -> list[dict[str, Any]]:
        """Takes the next piece of the answer's text."""
        if self._parser is not None:
            return self._take(self._parser.push(text))
        self._pieces.append(text)
        return [{"content": text}] if text else []

    def finish(self) -> list[dict[str, Any]]:
        """What was held back; the answer has ended."""
        return [] if self._parser is None else self._take(self._parser.finish())

    def finish_reason(self, reason: str) -> str:
        """OpenAI's reason: a named call ends with `stop`, and a cut one with `length`."""
        if not self.calls or reason != FinishReason.STOP or self._tools is None:
            return reason
        if self._tools.named:
            return reason
        return "function_call" if self._tools.legacy else "tool_calls"

    def body(self) -> dict[str, Any]:
        """The whole message."""
        message: dict[str, Any] = {
            "role": "assistant",
            "content": self.content if self.content or not self.calls else None,
            "refusal": None,
            "annotations": [],
        }
        if self.calls and self._tools is not None:
            if self._tools.legacy:
                message["function_call"] = self.calls[0]["function"]
            else:
                message["tool_calls"] = self.calls
        return message

    def _take(self, events: list[Event]) -> list[dict[str, Any]]:
        return [self._delta(event) for event in events]

    def _delta(self, event: Event) -> dict[str, Any]:
        match event:
            case TextPiece(text):
                self._pieces.append(text)
                return {"content": text}
            case CallBegin(name):
                function = {"name": name, "arguments": ""}
                call = {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function"}
                self.calls.append({**call, "function": function})
                return self._call_delta(call, dict(function))
            case ArgumentsPiece(text):
                self.calls[-1]["function"]["arguments"] += text
                return self._call_delta({}, {"arguments": text})

    def _call_delta(self, head: dict[str, Any], function: dict[str, str]) -> dict[str, Any]:
        if self._tools is not None and self._tools.legacy:
            return {"function_call": function}
        return {"tool_calls": [{"index": len(self.calls) - 1, **head, "function": function}]}
