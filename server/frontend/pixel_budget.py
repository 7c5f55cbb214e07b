"""How many pixels are unpacked: at the same time, whoever sent them, and of one request.

A small file can unpack to hundreds of megabytes, so the memory of all decoders together is bounded,
not only that of each. Decoders wait in their threads; what is larger than the whole budget goes
alone. What one request may make them do is bounded too, and there nobody waits.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from server.errors import invalid


class PixelBudget:
    """Shared by all threads that decode."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._taken = 0
        self._changed = threading.Condition()

    @contextmanager
    def holding(self, pixels: int) -> Iterator[None]:
        """Waits until there is room for so many pixels."""
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + pixels <= self._total)
            self._taken += pixels
        try:
            yield
        finally:
            with self._changed:
                self._taken -= pixels
                self._changed.notify_all()


class PixelAllowance:
    """What the pictures of one request may have together; used by several threads.

    Args:
        limit: as many pixels; the error names it.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken: dict[str, int] = {}
        self._lock = threading.Lock()

    def take(self, pixels: int, param: str) -> None:
        """
        Args:
            param: which picture; one that is read twice counts once.

        Raises:
            ApiError: 400; that picture is more than is left.
        """
        with self._lock:
            self._taken[param] = pixels
            if sum(self._taken.values()) > self._limit:
                raise invalid(
                    f"The pictures of this request have more than {self._limit} pixels together, "
                    "the limit of this server. Send fewer or smaller ones.",
                    param=param,
                    code="image_too_large",
                )
