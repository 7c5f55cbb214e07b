"""A server that answers at set times and computes nothing, to measure what measures.

Prompts have a token for each word and 5 more, answers as many as `max_tokens` allows. A prompt with
the word `fail` is refused, one with `break` loses its stream after the first token, and one with
`leave` is the last that its connection carries, which nobody is told.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

MODEL = "null"
VERSION = "0.0.1"
TEMPLATE_TOKENS = 5


@dataclass
class NullServer:
    """`await start()` gives its base URL.

    Args:
        first_s: pause before the first token.
        gap_s: pause between two tokens.
        usage: whether answers end with their numbers of tokens.
    """

    first_s: float = 0.0
    gap_s: float = 0.0
    usage: bool = True
    bodies: list[dict[str, Any]] = field(default_factory=list)
    """Of the chat requests it got."""

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}/v1"

    async def stop(self) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await self._answer(head.decode().split("\r\n"), reader, writer)
                if writer.is_closing():
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client is done
        finally:
            writer.close()

    async def _answer(
        self, head: list[str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        method, path, _ = head[0].split()
        if method == "GET":
            known: dict[str, dict[str, Any]] = {
                "/v1/models": {"data": [{"id": MODEL}]},
                "/version": {"version": VERSION},
            }
            _plain(writer, 200 if path in known else 404, known.get(path, {}))
            return
        fields = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = json.loads(await reader.readexactly(int(fields["content-length"])))
        self.bodies.append(body)
        words = _words(body)
        if "fail" in words:
            _plain(writer, 400, {"error": {"message": "asked to fail"}})
        else:
            await self._stream(body, len(words) + TEMPLATE_TOKENS, writer, "break" in words)
        if "leave" in words:
            await reader.read(1)  # of the next request
            writer.close()

    async def _stream(
        self, body: dict[str, Any], prompt: int, writer: asyncio.StreamWriter, breaks: bool
    ) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        _event(writer, {"choices": [{"delta": {"role": "assistant", "content": ""}}]})
        tokens = body["max_tokens"]
        for index in range(tokens):
            await asyncio.sleep(self.gap_s if index else self.first_s)
            finish = "length" if index == tokens - 1 else None
            _event(writer, {"choices": [{"delta": {"content": "a "}, "finish_reason": finish}]})
            await writer.drain()
            if breaks:
                writer.close()
                return
        if self.usage:
            usage = {"prompt_tokens": prompt, "completion_tokens": tokens}
            _event(writer, {"choices": [], "usage": usage})
        _chunk(writer, b"data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")
        await writer.drain()


def _words(body: dict[str, Any]) -> list[str]:
    words: list[str] = []
    for message in body["messages"]:
        content = message["content"]
        parts = content if isinstance(content, list) else [{"text": content}]
        words += " ".join(part.get("text", "") for part in parts).split()
    return words


def _plain(writer: asyncio.StreamWriter, status: int, value: dict[str, Any]) -> None:
    body = json.dumps(value).encode()
    head = f"HTTP/1.1 {status} Null\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)


def _event(writer: asyncio.StreamWriter, value: dict[str, Any]) -> None:
    _chunk(writer, b"data: " + json.dumps(value).encode() + b"\n\n")


def _chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
