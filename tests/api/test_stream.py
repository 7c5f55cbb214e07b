from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.types import Message

from server.api.stream import ChatChunks, EventStream, error_event
from server.errors import engine_restarted

HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 5}


def decode(frame: bytes) -> Any:
    assert frame.startswith(b"data: ")
    assert frame.endswith(b"\n\n")
    assert frame.count(b"\n") == 2
    return json.loads(frame[6:])


def test_chunks_without_usage() -> None:
    chunks = ChatChunks(HEAD, include_usage=False)
    assert decode(chunks.role(2)) == {
        **HEAD,
        "choices": [
            {
                "index": 2,
                "delta": {"role": "assistant", "content": "", "refusal": None},
                "logprobs": None,
                "finish_reason": None,
            }
        ],
    }
    assert decode(chunks.content(0, "Hi")) == {
        **HEAD,
        "choices": [
            {"index": 0, "delta": {"content": "Hi"}, "logprobs": None, "finish_reason": None}
        ],
    }
    assert decode(chunks.finish(1, "stop", "END")) == {
        **HEAD,
        "choices": [
            {
                "index": 1,
                "delta": {},
                "logprobs": None,
                "finish_reason": "stop",
                "stop_reason": "END",
            }
        ],
    }


def test_chunks_with_usage_carry_null_until_there_is_one() -> None:
    chunks = ChatChunks(HEAD, include_usage=True)
    for frame in (chunks.role(0), chunks.role(0, [1]), chunks.content(0, "x")):
        assert list(decode(frame))[-1] == "usage"
        assert decode(frame)["usage"] is None
    assert decode(chunks.delta(0, {}, usage={"total_tokens": 3}))["usage"] == {"total_tokens": 3}
    assert decode(chunks.usage({"total_tokens": 3})) == {
        **HEAD,
        "choices": [],
        "usage": {"total_tokens": 3},
    }


def test_log_probabilities_stand_in_the_chunk_of_their_text() -> None:
    chunks = ChatChunks(HEAD, include_usage=False)
    logprobs = {"content": [{"token": "x", "logprob": -0.5}], "refusal": None}
    for frame in (
        chunks.delta(0, {"content": "x"}, logprobs),
        chunks.finish(0, "stop", None, logprobs),
    ):
        assert decode(frame)["choices"][0]["logprobs"] == logprobs


def test_token_ids_stand_where_vllm_puts_them() -> None:
    chunks = ChatChunks(HEAD, include_usage=False)
    assert decode(chunks.role(0, [1, 2]))["prompt_token_ids"] == [1, 2]
    assert decode(chunks.delta(0, {}, None, [3]))["choices"][0]["token_ids"] == [3]
    assert decode(chunks.finish(0, "stop", 3))["choices"][0]["stop_reason"] == 3


@pytest.mark.parametrize(
    "text",
    ["", 'quote " and \\', "line\nbreak\r\n\u2028", "你好 🎉", "\x00\x1f\x7f", "data: x\n\n"],
)
def test_any_text_is_one_line_of_data(text: str) -> None:
    frame = ChatChunks(HEAD, include_usage=False).content(0, text)
    assert decode(frame)["choices"][0]["delta"]["content"] == text


def test_error_event() -> None:
    assert decode(error_event(engine_restarted())) == engine_restarted().body()


class Connection:
    """What a server gives an application, and all that the application sent."""

    def __init__(self, *, gone: bool = False) -> None:
        self.sent: list[Message] = []
        self.gone = asyncio.Event()
        if gone:
            self.gone.set()

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


SCOPE = {"type": "http", "method": "POST"}


def run_stream(
    frames: AsyncIterator[bytes], connection: Connection, keep_alive_s: float = 10
) -> int:
    """How often the end of the stream was told."""
    ends: list[None] = []

    async def run() -> None:
        stream = EventStream(frames, lambda: ends.append(None), keep_alive_s, {"x-extra": "1"})
        await stream(SCOPE, connection.receive, connection.send)

    asyncio.run(run())
    return len(ends)


async def two_frames() -> AsyncIterator[bytes]:
    yield b"data: 1\n\n"
    yield b"data: 2\n\n"


def test_frames_are_sent_as_they_are() -> None:
    connection = Connection()
    assert run_stream(two_frames(), connection) == 1
    assert connection.body == b"data: 1\n\ndata: 2\n\n"
    assert connection.sent[-1]["more_body"] is False
    headers = dict(connection.sent[0]["headers"])
    assert headers[b"content-type"].startswith(b"text/event-stream")
    assert headers[b"cache-control"] == b"no-cache"
    assert headers[b"x-accel-buffering"] == b"no"
    assert headers[b"x-extra"] == b"1"


def test_a_silent_stream_carries_comments() -> None:
    async def slow() -> AsyncIterator[bytes]:
        await asyncio.sleep(0.05)
        yield b"data: 1\n\n"

    connection = Connection()
    run_stream(slow(), connection, keep_alive_s=0.02)
    assert connection.body.startswith(b": keep-alive\n\n")
    # A slow machine may add comments behind.
    assert b"\n\ndata: 1\n\n" in connection.body


def test_the_end_is_told_when_the_client_leaves_before_the_first_frame() -> None:
    async def never() -> AsyncIterator[bytes]:
        await asyncio.sleep(10)
        yield b""

    assert run_stream(never(), Connection(gone=True)) == 1


def test_the_end_is_told_when_the_response_cannot_begin() -> None:
    class Broken(Connection):
        async def send(self, message: Message) -> None:
            raise OSError("gone")

    ends: list[None] = []

    async def run() -> None:
        connection = Broken()
        stream = EventStream(two_frames(), lambda: ends.append(None), 10, {})
        with pytest.raises(OSError, match="gone"):
            await stream(SCOPE, connection.receive, connection.send)

    asyncio.run(run())
    assert len(ends) == 1
