"""uvicorn's HTTP/1.1 protocol, for clients that are slow, silent, greedy or no HTTP clients at all.

Every phase of a connection has a deadline: the head, the body and each pause in it, a client that
does not read, an idle connection. What ends by one, and bytes that are no HTTP, get OpenAI's error
body where an answer can still be sent; the connection ends either way.
"""

from __future__ import annotations

import asyncio
import http
import sys
import uuid
from typing import Any

import h11
import msgspec
from uvicorn.protocols.http.h11_impl import H11Protocol

from server.api.chunks import offering_chunks
from server.board import Tally
from server.errors import CLOSE, ApiError, headers_too_large, invalid
from server.limits import Limits

LINGER_S = 2.0
"""How long what still comes is read and dropped after an early answer: cutting the connection at
once would throw the answer away before the client has read it."""


class GuardedH11Protocol(H11Protocol):
    """One connection.

    Args:
        tally: of the connections to all API processes.
    """

    def __init__(self, *args: Any, limits: Limits, tally: Tally, **options: Any) -> None:
        super().__init__(*args, **options)
        self.app = offering_chunks(self.app, self)
        self._limits = limits
        self._tally = tally
        self._deadline: asyncio.TimerHandle | None = None
        self._write_deadline: asyncio.TimerHandle | None = None
        self._body_began_at = 0.0
        self._heard_at = 0.0
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._tally.own = len(self.connections)
        if self._tally.total > self._limits.max_connections and not self._make_room():
            self._refuse(_too_many_connections(self._limits.max_connections))
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self.resume_writing()
        super().connection_lost(exc)
        self._tally.own = len(self.connections)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._heard_at = self.loop.time()
        if self._deadline is None and self._between_requests:
            self._await_head()
        super().data_received(data)
        if self._receives_body and self._body_began_at == 0.0:
            self._body_began_at = self._heard_at
            self._watch_body()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing() and self.conn.their_state is h11.SEND_BODY:
            self._arm(LINGER_S, self.transport.close)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_deadline = self.loop.call_later(
            self._limits.write_timeout_s, self.transport.abort
        )

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None

    def handle_events(self) -> None:
        super().handle_events()
        if not self._between_requests and not self._receives_body:
            self._disarm()  # the request has arrived; its answer has other deadlines

    def send_400_response(self, msg: str) -> None:
        failure = sys.exception()
        if isinstance(failure, h11.RemoteProtocolError) and failure.error_status_hint == 431:
            self._refuse(headers_too_large(self._limits.max_header_bytes))
        else:
            self._refuse(invalid("The request is not valid HTTP.", param=None, code="invalid_http"))

    @property
    def _between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    @property
    def _receives_body(self) -> bool:
        return self.conn.their_state is h11.SEND_BODY

    def _await_head(self) -> None:
        self._body_began_at = 0.0
        self._arm(self._limits.header_timeout_s, self._head_is_late)

    def _head_is_late(self) -> None:
        if self.conn.trailing_data[0]:
            self._refuse(_too_slow("header fields", self._limits.header_timeout_s))
        else:
            self.transport.close()

    def _watch_body(self) -> None:
        """Looks again at the earliest moment at which the body can be late."""
        limits, now = self._limits, self.loop.time()
        if self.flow.read_paused:
            self._heard_at = now  # it is us who do not read
        total_s = self._body_began_at + limits.body_timeout_s - now
        pause_s = self._heard_at + limits.body_pause_s - now
        if total_s <= 0:
            self._refuse(_too_slow("body", limits.body_timeout_s))
        elif pause_s <= 0:
            self._refuse(_too_slow("body without a pause", limits.body_pause_s))
        else:
            self._arm(min(total_s, pause_s), self._watch_body)

    def _make_room(self) -> bool:
        """Closes a connection that waits for its next request."""
        for connection in self.connections:
            if isinstance(connection, GuardedH11Protocol) and connection.kept_alive:
                connection.transport.close()
                self.connections.discard(connection)
                self._tally.own = len(self.connections)
                return True
        return False

    @property
    def kept_alive(self) -> bool:
        """Nothing happens here but waiting for another request."""
        return self.timeout_keep_alive_task is not None and self._between_requests

    def _arm(self, after_s: float, then: Any) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(after_s, then)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, failure: ApiError) -> None:
        """Answers if nothing has been answered yet, and closes when the client has, or soon."""
        self._refused = True
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = msgspec.json.encode(failure.body())
            headers = {
                "content-type": "application/json",
                "content-length": str(len(body)),
                "x-request-id": f"req-{uuid.uuid4().hex}",
                "x-should-retry": "true" if failure.status == 503 else "false",
                **failure.headers,
                **CLOSE,
            }
            reason = http.HTTPStatus(failure.status).phrase.encode()
            response = h11.Response(
                status_code=failure.status, headers=list(headers.items()), reason=reason
            )
            for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
            self.transport.write_eof()
        self._arm(LINGER_S, self.transport.close)


def _too_slow(what: str, limit_s: float) -> ApiError:
    return ApiError(
        408,
        "request_timeout",
        f"The request took too long: this server waits {limit_s:g} s for the {what}.",
    )


def _too_many_connections(limit: int) -> ApiError:
    return ApiError(
        503,
        "too_many_connections",
        f"The server has {limit} connections open, its limit. Try again later.",
        retry_after_s=1,
    )
