"""How many tokens of prompts wait for the engine: what is before a new request, in its own unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from server.board import Tally
from server.errors import ApiError
from server.messages import Submit

TOKEN_BYTES = 4


class WaitingTokens:
    """Of the choices that have not begun; those of one request share a prompt, which counts once.

    Args:
        limit: beyond it nothing more is taken, except where nothing waits.
        tally: what waits in all API processes.
    """

    def __init__(self, limit: int, tally: Tally) -> None:
        self._limit = limit
        self._tally = tally
        self._tokens: dict[int, int] = {}
        """By the id of a choice."""

    def check(self, requests: Sequence[Submit], retry_after_s: int) -> None:
        """Raises:
        ApiError: 429; these would be too many.
        """
        waiting = self._tally.total
        more = sum(len(prompt) for prompt in {request.prompt for request in requests})
        if waiting and waiting + more // TOKEN_BYTES > self._limit:
            raise ApiError(
                429,
                "rate_limit_exceeded",
                f"Prompts of {waiting} tokens are waiting and this server takes {self._limit} at "
                "most. Try again later.",
                retry_after_s=retry_after_s,
            )

    def add(self, requests: Mapping[int, Submit]) -> None:
        """Takes choices by their ids."""
        prompts: set[bytes] = set()
        for id, request in requests.items():
            if request.prompt not in prompts:
                self._tokens[id] = len(request.prompt) // TOKEN_BYTES
                self._tally.own += self._tokens[id]
            prompts.add(request.prompt)

    def end(self, id: int) -> None:
        """A choice has begun, or waits no more."""
        self._tally.own -= self._tokens.pop(id, 0)

    def clear(self) -> None:
        self._tokens.clear()
        self._tally.own = 0
