"""What every endpoint's form of an answer can do."""

from __future__ import annotations

from typing import Any, Protocol

from server.api.answer import News
from server.errors import ApiError


class Reply(Protocol):
    """How an `Answer` looks on the wire of one endpoint."""

    def body(self) -> dict[str, Any]:
        """The whole answer, when it has ended."""

    def begin(self) -> bytes:
        """First frames of a stream, before anything is known of the answer."""

    def news(self, news: News) -> bytes:
        """Frames for what has arrived, often none."""

    def end(self) -> bytes:
        """Last frames of a stream that told everything."""

    def failure(self, failure: ApiError) -> bytes:
        """Last frames of a stream that broke."""
