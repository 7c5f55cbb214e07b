"""Prompt-lookup speculation: what may come next, guessed from what was said before.

Answers repeat their prompts and themselves. Where the newest tokens of a request have stood before,
what followed them then is guessed to follow again, and computed in the same step as the newest
token: a token is drawn after each guess, and counts if all guesses before it were right. So the
answer is the same as without guesses, a few tokens at a time.

How far a row has come is known when its step has been read. So where anybody would guess nothing
stays in flight: the step waits for those before it, and the next one for it. That costs a moment of
the device's time at every step, and is over as soon as nobody has anything to guess.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from server.engine.draft import Draft
from server.engine.launched import Launched, LaunchedRow
from server.engine.request import Request
from server.engine.residency import Residency
from server.engine.totals import Totals

LONGEST, SHORTEST = 4, 2
"""How many of the newest tokens must have stood before: the longest such run decides."""

GUESSES = 7
"""Most guesses of a row."""

STEP_TOKENS = 32
"""Tokens of all rows and guesses together: so many take hardly longer than one, where the weights
have to be read in any case."""

ROWS = 8
"""Above so many rows nobody guesses: there would be little for each, and all would wait for it."""

PAUSE_MAX = 64
"""Longest pause, in tokens, of a request whose guesses are wrong again and again."""


class Speculation:
    """Decides who guesses what.

    Args:
        residency: gives blocks for guesses.
        totals: count them.
    """

    def __init__(self, residency: Residency, totals: Totals, *, enabled: bool) -> None:
        self._residency = residency
        self._totals = totals
        self._enabled = enabled

    def waits(self, launched: Launched, running: Sequence[Request]) -> bool:
        """Whether the next step has to wait for those that were launched."""
        if not self._enabled or not launched:
            return False
        decoding = [request for request in running if request.remaining == 1]
        return launched.guessing or (
            len(decoding) <= ROWS and any(_guesses(request, 1) for request in decoding)
        )

    def share(self, rows: int, budget_tokens: int) -> int:
        """How many guesses each of `rows` rows may have; every row comes before any guess."""
        if not self._enabled or not 0 < rows <= ROWS:
            return 0
        return max(0, min(1 + GUESSES, STEP_TOKENS // rows, budget_tokens // rows) - 1)

    def guess(self, request: Request, most: int, spare_blocks: int, draft: Draft) -> Sequence[int]:
        """What may follow the newest token of a request, if that is known and all that it has to
        compute. Takes blocks for it as long as `spare_blocks` are left over."""
        if not most or request.unknown or request.remaining > 1:
            return ()
        guesses = _guesses(request, most)
        owned = self._residency.reach(request, 1 + len(guesses), spare_blocks, draft)
        return guesses[: owned - 1]

    def learn(self, row: LaunchedRow, confirmed: int) -> None:
        """So many guesses of a row were right: that far its request is computed."""
        if not row.guesses:
            return
        self._totals.guessed_tokens += len(row.guesses)
        self._totals.confirmed_tokens += confirmed
        request = row.request
        request.confirmed = confirmed
        request.scheduled += confirmed
        request.wrong_guesses = 0 if confirmed else request.wrong_guesses + 1
        if not confirmed:
            pause = min(PAUSE_MAX, 1 << request.wrong_guesses)
            request.guesses_from = len(request.tokens) + pause


def _guesses(request: Request, most: int) -> list[int]:
    """At most `most` guesses, none beyond the end of the answer. A grammar would have to follow
    each of them, so whoever has one does not guess."""
    known = len(request.tokens)
    most = min(most, request.prompt_length + request.max_tokens - request.length - 1)
    if most < 1 or request.matcher is not None:
        return []
    if known == request.prompt_length or known < request.guesses_from:
        return []
    return look_up(request.tokens, most)


def look_up(tokens: array[int], count: int) -> list[int]:
    """The `count` tokens that followed when the newest of `tokens` stood there last; none where
    they have not. What would lie beyond the end goes on as it did until there."""
    content = tokens.tobytes()
    for length in range(min(LONGEST, len(tokens) - 1), SHORTEST - 1, -1):
        newest = content[-length * tokens.itemsize :]
        found = _find_last(content[: -tokens.itemsize], newest, tokens.itemsize)
        if found is not None:
            begin = found + length
            period = len(tokens) - begin
            return [tokens[begin + index % period] for index in range(count)]
    return []


def _find_last(content: bytes, part: bytes, width: int) -> int | None:
    """Where `part` stands in `content` for the last time, both of items of `width` bytes."""
    at = content.rfind(part)
    while at >= 0 and at % width:
        at = content.rfind(part, 0, at + len(part) - 1)
    return None if at < 0 else at // width
