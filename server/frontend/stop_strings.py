"""Finds stop strings in a text that arrives in pieces, and holds back what may become one.

Whatever the pieces, the released text is the whole text cut at the stop string that begins first.
A character costs the same however long the text and the stop strings are.
"""

from __future__ import annotations

from collections.abc import Iterable


class StopFinder:
    """Feed it with `push`, end it with `finish`; together they return the text to release."""

    def __init__(self, stop_strings: Iterable[str], *, keep: bool = False) -> None:
        """An empty stop string never stops.

        Args:
            keep: the text ends behind the stop string, not before it.
        """
        self._keep = keep
        self._searches = [_Search(stop) for stop in stop_strings if stop]
        self._held = ""
        self._found: tuple[int, str] | None = None
        """Begin in `_held` and name of the stop string that begins first, of those complete."""
        self.stopped: str | None = None
        """The stop string that ended the text."""

    @property
    def searches(self) -> bool:
        """There is something to find."""
        return bool(self._searches)

    def push(self, text: str) -> str:
        """Takes the next piece of the text."""
        if self.stopped is not None:
            return ""
        if not self._searches:
            return text
        held_before = len(self._held)
        self._held += text
        for position, char in enumerate(text, start=held_before + 1):
            self._advance(char, position)
            # Another stop string that begins before the found one may still become complete.
            if self._found is not None and self._found[0] <= self._open_from(position):
                return self._stop()
        return self._release(self._open_from(len(self._held)))

    def finish(self) -> str:
        """The rest: nothing can become complete any more."""
        return self._release(len(self._held)) if self._found is None else self._stop()

    def _advance(self, char: str, position: int) -> None:
        for search in self._searches:
            if search.completes(char):
                begin = position - len(search.stop)
                if self._found is None or begin < self._found[0]:
                    self._found = begin, search.stop

    def _open_from(self, position: int) -> int:
        """Where the longest unfinished stop string begins."""
        return position - max(search.matched for search in self._searches)

    def _release(self, length: int) -> str:
        released, self._held = self._held[:length], self._held[length:]
        if self._found is not None:
            self._found = self._found[0] - length, self._found[1]
        return released

    def _stop(self) -> str:
        assert self._found is not None
        begin, self.stopped = self._found
        end = begin + len(self.stopped) if self._keep else begin
        released, self._held = self._held[:end], ""
        return released


class _Search:
    """Knuth, Morris and Pratt's search for one stop string."""

    def __init__(self, stop: str) -> None:
        self.stop = stop
        self.matched = 0
        """Length of the longest proper beginning of `stop` that the text so far ends with."""
        self._borders = _borders(stop)

    def completes(self, char: str) -> bool:
        """Takes the next character and tells whether `stop` ends with it."""
        matched = self.matched
        while matched and self.stop[matched] != char:
            matched = self._borders[matched - 1]
        if self.stop[matched] == char:
            matched += 1
        complete = matched == len(self.stop)
        self.matched = self._borders[-1] if complete else matched
        return complete


def _borders(word: str) -> list[int]:
    """For each beginning of the word, the longest proper beginning of it that is also its end."""
    borders = [0]
    for char in word[1:]:
        length = borders[-1]
        while length and word[length] != char:
            length = borders[length - 1]
        borders.append(length + (word[length] == char))
    return borders
