"""The choices of one request while the engine works on them.

A submission ends exactly once: with the terminal delta of each choice, or with one `ApiError`.
Whoever leaves earlier must close it, which cancels what is still open. Nothing here waits for the
connection, so closing is safe in any state of the caller's task, also when that was cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType

from server.errors import ApiError
from server.messages import Delta


class Submission:
    """The choices of one request. `take` and iterating give what has arrived since the last look,
    as (index of the choice, delta).

    Args:
        fingerprints: of the inputs.
    """

    def __init__(
        self,
        ids: Sequence[int],
        cancel: Callable[[int], None],
        fingerprints: frozenset[bytes] = frozenset(),
    ) -> None:
        self.fingerprints = fingerprints
        self.listener: Callable[[], None] | None = None
        """Called when there is news, instead of waking whoever iterates."""
        self.failure: ApiError | None = None
        self.closing = False
        """Nothing comes after what has arrived."""
        self._ids = ids
        self._cancel = cancel
        self._open = {id: index for index, id in enumerate(ids)}
        self._arrived: list[tuple[int, Delta]] = []
        self._begun = False
        self._news = asyncio.Event()

    def push(self, delta: Delta) -> None:
        """Takes a delta in; `tell` says so when all of a message are in."""
        self._begun = True
        if self.failure is None:
            self._arrived.append((self._open[delta.id], delta))
            if delta.finish is not None:
                del self._open[delta.id]
                self.closing = not self._open

    def tell(self) -> None:
        if self.listener is None:
            self._news.set()
        else:
            self.listener()

    def fail(self, failure: ApiError) -> None:
        if self.failure is None:
            self.failure, self.closing = failure, True
            self.tell()

    def fail_unless_begun(self, failure: ApiError) -> None:
        """Fails if the engine has said nothing yet."""
        if not self._begun:
            self.fail(failure)

    def take(self) -> list[tuple[int, Delta]]:
        arrived, self._arrived = self._arrived, []
        return arrived

    def cancel(self, index: int) -> None:
        """Ends one choice; only what has arrived before may still be seen of it."""
        self._cancel(self._ids[index])
        self._open.pop(self._ids[index], None)
        self.closing = self.closing or not self._open

    def close(self) -> None:
        """Cancels whatever has not ended. Idempotent, and needs no event loop turn."""
        for id in self._open:
            self._cancel(id)
        self._open.clear()

    async def begun(self) -> None:
        """Returns with the first news. Raises the failure when that is the first news."""
        await self._news.wait()
        if self.failure is not None and not self._arrived:
            raise self.failure

    def __aiter__(self) -> Submission:
        return self

    async def __anext__(self) -> list[tuple[int, Delta]]:
        while not self._arrived:
            if self.failure is not None:
                raise self.failure
            if not self._open:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self.take()

    def __enter__(self) -> Submission:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
