"""Servers that write the frames of a stream and do nothing else: what the daemon's front end could
cost at least. Prints its address, then serves until it is ended.

`asyncio` writes to each connection from one loop, without HTTP being parsed; `uvicorn` is the
least ASGI application that streams, each connection a task that writes when it is told.

    python -m benchmarks.frontend_floor asyncio
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import sys
from typing import Any

import uvicorn
import uvloop

FRAME = (
    b'data: {"id":"chatcmpl-0123456789abcdef0123456789abcdef","object":"chat.completion.chunk",'
    b'"created":1790000000,"model":"null","service_tier":"default","system_fingerprint":'
    b'"fp_0123456789","choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,'
    b'"finish_reason":null}],"usage":null}\n\n'
)
CHUNK = b"%x\r\n%b\r\n" % (len(FRAME), FRAME)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
MAX_TOKENS = re.compile(rb'"max_tokens": ?(\d+)')


def ending(tokens: int) -> bytes:
    return b'data: {"usage":{"completion_tokens":%d}}\n\ndata: [DONE]\n\n' % tokens


class Writer(asyncio.Protocol):
    """A connection of the plainest server."""

    def __init__(self, open_writers: set[Writer]) -> None:
        self._open = open_writers
        self.left = self.asked = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if asked := MAX_TOKENS.search(data):
            self.left = self.asked = int(asked[1])
            self.transport.write(HEAD)
            self._open.add(self)

    def write(self) -> None:
        if self.left:
            self.left -= 1
            self.transport.write(CHUNK)
        else:
            end = ending(self.asked)
            self.transport.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(end), end))
            self._open.discard(self)

    def connection_lost(self, _: Exception | None) -> None:
        self._open.discard(self)


async def serve_asyncio(listener: socket.socket) -> None:
    writers: set[Writer] = set()
    loop = asyncio.get_running_loop()
    await loop.create_server(lambda: Writer(writers), sock=listener)
    while True:
        for writer in list(writers):
            writer.write()
        await asyncio.sleep(0 if writers else 0.05)


class Application:
    """One step for all streams at a time."""

    def __init__(self) -> None:
        self.news: set[asyncio.Event] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        asked = MAX_TOKENS.search((await receive())["body"])
        assert asked is not None
        news = asyncio.Event()
        self.news.add(news)
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for _ in range(int(asked[1])):
            await news.wait()
            news.clear()
            await send({"type": "http.response.body", "body": FRAME, "more_body": True})
        self.news.discard(news)
        await send({"type": "http.response.body", "body": ending(int(asked[1]))})

    async def tell(self) -> None:
        while True:
            for news in list(self.news):
                news.set()
            await asyncio.sleep(0 if self.news else 0.05)


async def serve_uvicorn(listener: socket.socket) -> None:
    application = Application()
    config = uvicorn.Config(application, access_log=False, log_config=None, lifespan="off")
    telling = asyncio.create_task(application.tell())
    with contextlib.suppress(asyncio.CancelledError):
        await uvicorn.Server(config).serve([listener])
    telling.cancel()


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    serve = {"asyncio": serve_asyncio, "uvicorn": serve_uvicorn}[sys.argv[1]]
    uvloop.run(serve(listener))


if __name__ == "__main__":
    main()
