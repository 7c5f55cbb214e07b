"""Request bodies: bounded each and all together, read as they come.

What a request brought is counted as it arrives and until the request has ended, because its texts
and pictures are kept until then. A length that is only declared takes no room, or whoever declares
much and sends nothing would keep all others out; one that does not fit is refused at once. Nobody
waits for room: requests that had read half of their bodies could wait for each other for ever.
"""

from __future__ import annotations

from starlette.requests import Request

from server.board import Tally
from server.errors import CLOSE, ApiError
from server.limits import Limits


class Bodies:
    """All bodies of this process, and how much those of all processes hold."""

    def __init__(self, limits: Limits, tally: Tally | None = None) -> None:
        self.limits = limits
        self._held = tally or Tally()

    @property
    def held_bytes(self) -> int:
        """Of requests that have not ended."""
        return self._held.own

    async def read(self, request: Request) -> bytes:
        """The whole body.

        Raises:
            ApiError: 413, or 429 when other requests hold too much.
        """
        limit = min(self.limits.max_body_bytes, self.limits.max_total_body_bytes)
        declared = request.headers.get("content-length", "")
        room = _Room(self, limit)
        request.state.at_end.callback(room.release)
        if declared.isdecimal():
            room.check(int(declared))
        body = bytearray()
        async for piece in request.stream():
            body += piece
            room.grow_to(len(body))
        return bytes(body)

    def check(self, size_bytes: int) -> None:
        """Raises:
        ApiError: 429; there is no room for so much more.
        """
        if (held_bytes := self._held.total) + size_bytes > self.limits.max_total_body_bytes:
            raise ApiError(
                429,
                "rate_limit_exceeded",
                f"The bodies of unfinished requests hold {held_bytes} bytes and this server "
                f"takes {self.limits.max_total_body_bytes} at most. Try again later.",
                retry_after_s=1,
                headers=CLOSE,
            )

    def take(self, size_bytes: int) -> None:
        """Raises:
        ApiError: as `check`.
        """
        self.check(size_bytes)
        self._held.own += size_bytes

    def give_back(self, size_bytes: int) -> None:
        self._held.own -= size_bytes


class _Room:
    """What one body has of the whole."""

    def __init__(self, bodies: Bodies, limit_bytes: int) -> None:
        self._bodies = bodies
        self._limit_bytes = limit_bytes
        self._taken_bytes = 0

    def check(self, size_bytes: int) -> None:
        """Refuses a body of this size that could not be read now; takes no room."""
        self._check_limit(size_bytes)
        self._bodies.check(size_bytes)

    def grow_to(self, size_bytes: int) -> None:
        self._check_limit(size_bytes)
        self._bodies.take(size_bytes - self._taken_bytes)
        self._taken_bytes = size_bytes

    def _check_limit(self, size_bytes: int) -> None:
        if size_bytes > self._limit_bytes:
            raise _too_large(self._limit_bytes)

    def release(self) -> None:
        self._bodies.give_back(self._taken_bytes)


def _too_large(limit_bytes: int) -> ApiError:
    return ApiError(
        413,
        "request_too_large",
        f"The request body is larger than {limit_bytes} bytes, the limit of this server. "
        "Send fewer or smaller pictures.",
        headers=CLOSE,
    )
