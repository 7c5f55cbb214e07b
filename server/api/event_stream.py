"""The response that carries a stream of events, and stays out of its way.

News is written by whoever brings it, in the same turn of the loop, without waking a task: that is
nearly all of a stream. The task of the request does the rest: the begin, the end, keep-alive
comments, and writing to a client that lags, which gets all that has come meanwhile at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server.api.chunks import CHUNKS, ChunkWriter
from server.api.incoming import disconnected

COMMENT = b": keep-alive\n\n"


class Source(Protocol):
    """What is streamed. It never raises: a failure is an event too."""

    @property
    def closing(self) -> bool:
        """Nothing comes after what has arrived."""

    @property
    def ended(self) -> bool:
        """The last event has been taken."""

    def begin(self) -> bytes:
        """Events before all others, perhaps none."""

    def take(self) -> bytes:
        """Events of what has arrived since the last look, perhaps none."""

    def listen(self, listener: Callable[[], None] | None) -> None:
        """Has `listener` called whenever something has arrived."""


class EventStream(Response):
    """A stream that is always told when it is over, and that ends when its source does: also in a
    shutdown, so that the client sees the reason.

    Args:
        on_end: called once, however the stream ends.
        keep_alive_s: longest silence.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        source: Source,
        on_end: Callable[[], None],
        keep_alive_s: float,
        headers: Mapping[str, str],
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no", **headers})
        self._source = source
        self._on_end = on_end
        self._keep_alive_s = keep_alive_s
        self._stirred = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._chunks: ChunkWriter | None = None
        self._task_writes = True
        """Nobody may overtake the request's task now."""
        self._written_at = self._loop.time()
        self._comment_due = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        leaving = asyncio.ensure_future(disconnected(receive))
        leaving.add_done_callback(lambda _: self._stirred.set())
        self._timer = self._loop.call_later(self._keep_alive_s, self._watch_silence)
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            self._chunks = scope.get("extensions", {}).get(CHUNKS)
            self._source.listen(self._told)
            await self._deliver(send, leaving)
        finally:
            self._source.listen(None)
            self._timer.cancel()
            leaving.cancel()
            self._on_end()

    async def _deliver(self, send: Send, leaving: asyncio.Future[None]) -> None:
        events = self._source.begin()
        while not leaving.done():
            self._stirred.clear()
            events += self._source.take()
            if self._source.ended:
                await send({"type": "http.response.body", "body": events})
                return
            if self._comment_due:
                events = events or COMMENT
            if events:
                self._written()
                await send({"type": "http.response.body", "body": events, "more_body": True})
                events = b""
            self._task_writes = False
            await self._stirred.wait()
            self._task_writes = True

    def _written(self) -> None:
        self._written_at, self._comment_due = self._loop.time(), False

    def _watch_silence(self) -> None:
        """Looks again at the earliest moment at which the silence can be too long."""
        pause_s = self._written_at + self._keep_alive_s - self._loop.time()
        if pause_s <= 0:
            self._comment_due = True
            self._stirred.set()
            pause_s = self._keep_alive_s
        self._timer = self._loop.call_later(pause_s, self._watch_silence)

    def _told(self) -> None:
        """Writes news at once where the way is free, or wakes the task."""
        chunks, source = self._chunks, self._source
        if self._task_writes or chunks is None or source.closing or not chunks.free:
            self._stirred.set()
            return
        if events := source.take():
            chunks.write(events)
            self._written()
        if source.ended:
            self._stirred.set()
