"""How many pixels are unpacked at the same time, whoever sent them.

A small file can unpack to hundreds of megabytes, so the memory of all decoders together is bounded,
not only that of each. Decoders wait in their threads; what is larger than the whole budget goes
alone.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


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
