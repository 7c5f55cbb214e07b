"""The shortest way from a stream to its socket.

Through ASGI each piece of a body passes a coroutine of every middleware and the state machine of
h11, which costs more than the frame in it. So the protocol offers, as an extension of the scope, to
write pieces as chunks itself. Begin and end of the response go through ASGI, and so does whatever
cannot be written at once: this way is for the middle of a body while the client keeps up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Receive, Scope, Send

if TYPE_CHECKING:
    from server.api.protocol import GuardedH11Protocol

CHUNKS = "internvl.chunks"
"""Name of the extension."""


class ChunkWriter:
    """Pieces of a body whose head was sent without a length, over HTTP/1.1."""

    def __init__(self, protocol: GuardedH11Protocol) -> None:
        self._transport = protocol.transport
        self._flow = protocol.flow

    @property
    def free(self) -> bool:
        """The client is there and has read most of what was written."""
        return not (self._flow.write_paused or self._transport.is_closing())

    def write(self, piece: bytes) -> None:
        """Writes a piece, which must not be empty: that would end the body."""
        self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))


def offering_chunks(app: ASGIApp, protocol: GuardedH11Protocol) -> ASGIApp:
    """The application, offered the extension. A client of HTTP/1.0 knows no chunks."""

    async def offered(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["http_version"] == "1.1":
            scope["extensions"] = {CHUNKS: ChunkWriter(protocol)}
        await app(scope, receive, send)

    return offered
