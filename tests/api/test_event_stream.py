from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from starlette.types import Message

from server.api.chunks import CHUNKS
from server.api.event_stream import EventStream

SCOPE: dict[str, Any] = {"type": "http", "method": "POST"}


class Script:
    """A source that says what it is told to, in the order of `say`."""

    def __init__(self, *events: bytes) -> None:
        self.arrived = list(events)
        self.closing = self.ended = False
        self.tell: Callable[[], None] | None = None

    def listen(self, listener: Callable[[], None] | None) -> None:
        self.tell = listener

    def say(self, event: bytes) -> None:
        self.arrived.append(event)
        if self.tell is not None:
            self.tell()

    def close(self, *events: bytes) -> Script:
        self.arrived += events
        self.closing = True
        if self.tell is not None:
            self.tell()
        return self

    def begin(self) -> bytes:
        return b"begin "

    def take(self) -> bytes:
        events, self.arrived = b"".join(self.arrived), []
        self.ended = self.closing
        return events


class Chunks:
    """A way to write that can be closed."""

    def __init__(self, connection: Connection) -> None:
        self.free = True
        self._connection = connection

    def write(self, piece: bytes) -> None:
        assert self.free and piece
        self._connection.sent.append({"type": "chunk", "body": piece})


class Connection:
    """What a server gives an application, and all that the application sent."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.gone = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await self.open.wait()
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


class Served:
    """A stream in a task, with the quick way to write."""

    def __init__(self, source: Script, keep_alive_s: float = 10, *, quick: bool = True) -> None:
        self.source = source
        self.connection = Connection()
        self.chunks = Chunks(self.connection)
        self.ends = 0
        stream = EventStream(source, self._count_end, keep_alive_s, {"x-extra": "1"})
        scope = SCOPE | ({"extensions": {CHUNKS: self.chunks}} if quick else {})
        self.task = asyncio.create_task(
            stream(scope, self.connection.receive, self.connection.send)
        )

    def _count_end(self) -> None:
        self.ends += 1

    async def turns(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    def kinds(self) -> list[str]:
        """Of what was sent after the head, and what was in it."""
        return [
            f"{message['type'].removeprefix('http.response.')}:{message['body'].decode()}"
            for message in self.connection.sent[1:]
        ]


def test_events_are_sent_as_they_are() -> None:
    async def run() -> None:
        served = Served(Script(b"one ", b"two ").close(), quick=False)
        await served.task
        assert served.connection.body == b"begin one two "
        assert not served.connection.sent[-1].get("more_body", False)
        headers = dict(served.connection.sent[0]["headers"])
        assert headers[b"content-type"].startswith(b"text/event-stream")
        assert headers[b"cache-control"] == b"no-cache"
        assert headers[b"x-accel-buffering"] == b"no"
        assert headers[b"x-extra"] == b"1"
        assert b"content-length" not in headers
        assert served.ends == 1

    asyncio.run(run())


def test_news_is_written_by_whoever_brings_it() -> None:
    async def run() -> None:
        served = Served(source := Script())
        await served.turns()
        source.say(b"one ")
        source.say(b"two ")
        assert served.kinds() == ["body:begin ", "chunk:one ", "chunk:two "]
        source.close(b"three ")
        await served.task
        assert served.kinds()[3:] == ["body:three "]
        assert source.tell is None

    asyncio.run(run())


def test_a_client_that_lags_gets_all_that_has_come_at_once() -> None:
    async def run() -> None:
        served = Served(source := Script())
        await served.turns()
        served.chunks.free = False
        served.connection.open.clear()
        source.say(b"one ")
        await served.turns()  # the task has taken it and cannot send it
        served.chunks.free = True  # the client reads again, and the task has not run yet
        source.say(b"two ")
        source.say(b"three ")
        assert served.kinds() == ["body:begin "]
        served.connection.open.set()
        await served.turns()
        assert served.kinds() == ["body:begin ", "body:one ", "body:two three "]
        source.say(b"four ")
        assert served.kinds()[3:] == ["chunk:four "]
        source.close()
        await served.task

    asyncio.run(run())


def test_without_the_quick_way_the_task_writes() -> None:
    async def run() -> None:
        served = Served(source := Script(), quick=False)
        await served.turns()
        source.say(b"one ")
        await served.turns()
        source.close(b"two ")
        await served.task
        assert served.kinds() == ["body:begin ", "body:one ", "body:two "]

    asyncio.run(run())


@pytest.mark.parametrize("quick", [True, False])
def test_a_silent_stream_carries_comments(quick: bool) -> None:
    async def run() -> None:
        served = Served(source := Script(), keep_alive_s=0.02, quick=quick)
        await asyncio.sleep(0.1)
        source.close(b"last")
        await served.task
        assert served.connection.body.startswith(b"begin : keep-alive\n\n")
        assert served.connection.body.endswith(b"last")

    asyncio.run(run())


def test_a_stream_that_speaks_carries_none() -> None:
    async def run() -> None:
        served = Served(source := Script(), keep_alive_s=5)
        for _ in range(5):
            source.say(b".")
            await asyncio.sleep(0.01)
        source.close()
        await served.task
        assert b"keep-alive" not in served.connection.body

    asyncio.run(run())


def test_the_end_is_told_when_the_client_leaves() -> None:
    async def run() -> None:
        served = Served(source := Script())
        served.connection.gone.set()
        await asyncio.wait_for(served.task, 5)
        assert served.ends == 1
        assert source.tell is None

    asyncio.run(run())


def test_the_end_is_told_when_the_response_cannot_begin() -> None:
    async def broken(_: Message) -> None:
        raise OSError("gone")

    async def run() -> None:
        ends: list[None] = []
        stream = EventStream(Script(), lambda: ends.append(None), 10, {})
        with pytest.raises(OSError, match="gone"):
            await stream(SCOPE, Connection().receive, broken)
        assert len(ends) == 1

    asyncio.run(run())
