"""Numbers that the API processes of a daemon show each other, in memory that all of them map.

Each writes its own and reads those of all without asking: a process that stands still or has died
holds nobody up, and what it has counted stays. Every process takes its numbers from the board in
the same order, so they lie at the same places. An API process that is alone has plain lists.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

from server.mapped import map_file

N = TypeVar("N", int, float)

PAGE_BYTES = 128 * 1024
"""What a process has for itself."""

CELL_BYTES = 8

WORDS_MAX, WORD_BYTES = 128, 64
OTHER = "other"


class Cells(Protocol[N]):
    """A list, or a part of the memory."""

    def __getitem__(self, place: int, /) -> N: ...

    def __setitem__(self, place: int, value: N, /) -> None: ...

    def __iter__(self) -> Iterator[N]: ...


class Row(Generic[N]):
    """Numbers of which every process has its own.

    Args:
        everyone: those of each process.
        own: place of this process.
    """

    def __init__(self, everyone: Sequence[Cells[N]], own: int) -> None:
        self.others: list[Cells[N]] = list(everyone)
        self.own: Cells[N] = self.others.pop(own)

    def totals(self) -> list[N]:
        """Each number summed over the processes."""
        if not self.others:
            return list(self.own)
        return [sum(same) for same in zip(self.own, *self.others, strict=True)]


class Tally:
    """How much of something all processes have together. A process that starts has nothing, also
    where the one before it was killed with something.

    Args:
        cells: one for each process.
        own_place: of this process.
    """

    def __init__(self, cells: Cells[int] | None = None, own_place: int = 0) -> None:
        self._cells: Cells[int] = [0] if cells is None else cells
        self._own_place = own_place
        self.own = 0

    @property
    def own(self) -> int:
        """What this process has."""
        return self._cells[self._own_place]

    @own.setter
    def own(self, value: int) -> None:
        self._cells[self._own_place] = value

    @property
    def total(self) -> int:
        return sum(self._cells)

    @property
    def largest(self) -> int:
        return max(self._cells)


class Board:
    """Hands out rows.

    Args:
        memory: a page for each process; None where there is one process.
        own: place of this process.
    """

    def __init__(self, memory: memoryview | None = None, own: int = 0) -> None:
        self._memory = memory
        self.own = own
        self._taken_bytes = 0

    @classmethod
    def open(cls, run_dir: Path, processes: int, own: int) -> Board:
        """That of the daemon which uses `run_dir`."""
        if processes == 1:
            return cls()
        return cls(memoryview(map_file(run_dir / "board", processes * PAGE_BYTES)), own)

    def integers(self, count: int) -> Row[int]:
        return Row(self._take(count, "q"), self.own)

    def floats(self, count: int) -> Row[float]:
        return Row(self._take(count, "d"), self.own)

    def tally(self) -> Tally:
        if self._memory is None:
            return Tally()
        at = self._advance(CELL_BYTES) // CELL_BYTES
        return Tally(self._memory.cast("q")[at :: PAGE_BYTES // CELL_BYTES], self.own)

    def words(self) -> WordCounts:
        size_bytes = WORDS_MAX * WORD_BYTES
        names: Sequence[bytearray | memoryview] = (
            [bytearray(size_bytes)] if self._memory is None else self._pages(size_bytes)
        )
        return WordCounts(names, self.floats(WORDS_MAX), self.own)

    def _take(self, count: int, form: Literal["q", "d"]) -> list[Any]:
        if self._memory is None:
            return [[0 if form == "q" else 0.0] * count]
        return [page.cast(form) for page in self._pages(count * CELL_BYTES)]

    def _pages(self, size_bytes: int) -> list[memoryview]:
        """The next bytes of every page."""
        assert self._memory is not None
        at = self._advance(size_bytes)
        begins = range(at, len(self._memory), PAGE_BYTES)
        return [self._memory[begin : begin + size_bytes] for begin in begins]

    def _advance(self, size_bytes: int) -> int:
        at = self._taken_bytes
        self._taken_bytes += size_bytes
        assert self._taken_bytes <= PAGE_BYTES, "PAGE_BYTES is too small"
        return at


class WordCounts:
    """Counts of words: what is beyond `WORDS_MAX` of them counts as "other".

    A word is a byte that tells its length and its characters. That byte is written last, so nobody
    reads half a word; a word never changes.
    """

    def __init__(
        self, names: Sequence[bytearray | memoryview], counts: Row[float], own: int
    ) -> None:
        self._names = names[own]
        self._others = [page for place, page in enumerate(names) if place != own]
        self._counts = counts
        self._places = {word: place for place, word in enumerate(_words(self._names))}

    def add(self, word: str, amount: float) -> None:
        place = self._places.get(word)
        if place is None:
            place = self._find_place(word)
        self._counts.own[place] += amount

    def totals(self) -> dict[str, float]:
        """Of all processes."""
        totals = {word: self._counts.own[place] for word, place in self._places.items()}
        for names, counts in zip(self._others, self._counts.others, strict=True):
            for word, count in zip(_words(names), counts, strict=False):
                totals[word] = totals.get(word, 0.0) + count
        return totals

    def _find_place(self, word: str) -> int:
        place = len(self._places)
        if place >= WORDS_MAX - 1:
            word = OTHER
        if word in self._places:
            return self._places[word]
        at, data = place * WORD_BYTES, word.encode()[: WORD_BYTES - 1]
        self._names[at + 1 : at + 1 + len(data)] = data
        self._names[at] = len(data) + 1
        self._places[word] = place
        return place


def _words(names: bytearray | memoryview) -> Iterable[str]:
    for at in range(0, len(names), WORD_BYTES):
        if not names[at]:
            return
        yield bytes(names[at + 1 : at + names[at]]).decode()
