"""Server-sent events: the bytes of each chunk.

Chunks of a stream differ in a few bytes, so what repeats is serialised once per request. Every
frame is one line of data and a blank line.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from server.errors import ApiError

DONE = b"data: [DONE]\n\n"

_encode = msgspec.json.Encoder().encode


def error_event(failure: ApiError) -> bytes:
    """The last event of a stream that failed; `[DONE]` must not follow it."""
    return b"data: " + _encode(failure.body()) + b"\n\n"


class ChatChunks:
    """Formats the chunks of one `chat.completion.chunk` stream.

    Args:
        head: what every chunk begins with, in OpenAI's order.
        include_usage: chunks carry `usage`, null where none is given.
    """

    def __init__(self, head: Mapping[str, Any], *, include_usage: bool) -> None:
        self._head = b"data: " + _encode(head)[:-1] + b',"choices":['
        self._tail = b'],"usage":null}\n\n' if include_usage else b"]}\n\n"
        self._content_heads: dict[int, bytes] = {}
        self._content_tail = b'},"logprobs":null,"finish_reason":null}' + self._tail

    def role(self, index: int, prompt_token_ids: list[int] | None = None) -> bytes:
        """First chunk of a choice."""
        choice = (
            b'{"index":%d,"delta":{"role":"assistant","content":"","refusal":null},'
            b'"logprobs":null,"finish_reason":null}' % index
        )
        if prompt_token_ids is None:
            return self._head + choice + self._tail
        ids = b',"prompt_token_ids":' + _encode(prompt_token_ids)
        return self._head + choice + b"]" + ids + self._tail[1:]

    def content(self, index: int, text: str) -> bytes:
        """A chunk of text and nothing else, as most are."""
        head = self._content_heads.get(index)
        if head is None:
            head = b'%b{"index":%d,"delta":{"content":' % (self._head, index)
            self._content_heads[index] = head
        return head + _encode(text) + self._content_tail

    def delta(
        self,
        index: int,
        delta: Mapping[str, Any],
        logprobs: Mapping[str, Any] | None = None,
        token_ids: list[int] | None = None,
        usage: Mapping[str, Any] | None = None,
    ) -> bytes:
        """A chunk between a choice's first and its last."""
        choice = b'{"index":%d,"delta":%b,"logprobs":%b,"finish_reason":null' % (
            index,
            _encode(delta),
            _encode(logprobs),
        )
        if token_ids is not None:
            choice += b',"token_ids":' + _encode(token_ids)
        return self._head + choice + b"}" + self._end(usage)

    def finish(
        self,
        index: int,
        reason: str,
        stop_reason: str | int | None,
        logprobs: Mapping[str, Any] | None = None,
        usage: Mapping[str, Any] | None = None,
    ) -> bytes:
        """Last chunk of a choice.

        Args:
            logprobs: of tokens without text of their own, such as the one that ended the choice.
        """
        choice = b'{"index":%d,"delta":{},"logprobs":%b,"finish_reason":%b,"stop_reason":%b}' % (
            index,
            _encode(logprobs),
            _encode(reason),
            _encode(stop_reason),
        )
        return self._head + choice + self._end(usage)

    def usage(self, usage: Mapping[str, Any]) -> bytes:
        """The chunk without choices that ends a stream with `include_usage`."""
        return self._head + self._end(usage)

    def _end(self, usage: Mapping[str, Any] | None) -> bytes:
        return self._tail if usage is None else b'],"usage":' + _encode(usage) + b"}\n\n"
