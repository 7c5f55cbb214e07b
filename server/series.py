"""Counters, readings and histograms, and their lines in Prometheus' text format.

A page is made at every scrape, and routers scrape 20 times a second, so it has to cost next to
nothing beside the streams of the same process: a histogram's lines are one template that is filled
with its counts. Nothing is global; observing is safe from any thread. Where several API processes
count, each counts for itself on a board, and a page shows the sums.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Literal, Protocol

from server.board import Board

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Kind = Literal["counter", "gauge", "histogram"]


class Series(Protocol):
    """What a page lists: one name, its help and its samples."""

    @property
    def name(self) -> str:
        """In full: counters end in `_total`."""

    def render(self, name: str, constant: str = "") -> str:
        """Help, type and samples.

        Args:
            name: to use instead of the series' own.
            constant: labels of all samples, as `labels` writes them.
        """


class Reading:
    """A number that somebody else keeps; nothing while there is none."""

    def __init__(self, name: str, text: str, kind: Kind, read: Callable[[], float | None]) -> None:
        self.name = name
        self._text = text
        self._kind = kind
        self._read = read

    def render(self, name: str, constant: str = "") -> str:
        value = self._read()
        if value is None:
            return ""
        return f"{_head(name, self._text, self._kind)}{name}{_braced(constant)} {value!r}\n"


class Info:
    """Facts as labels of a sample that is always 1; nothing while there are none."""

    def __init__(self, name: str, text: str, read: Callable[[], Mapping[str, object]]) -> None:
        self.name = name
        self._text = text
        self._read = read

    def render(self, name: str, constant: str = "") -> str:
        facts = self._read()
        if not facts:
            return ""
        return f"{_head(name, self._text, 'gauge')}{name}{_braced(labels(facts), constant)} 1\n"


class Counter:
    """Counts, apart for each value of one label where it has one.

    Args:
        label: its values are numbers or words of our own, never what a client sent.
        known: values that are listed from the start, so that their first event is an increase.
        board: what processes count together; None for one that counts alone.
    """

    def __init__(
        self,
        name: str,
        text: str,
        label: str | None = None,
        known: Sequence[str] = (),
        board: Board | None = None,
    ) -> None:
        self.name = name
        self._text = text
        self._label = label
        self._lock = threading.Lock()
        self._counts = (board or Board()).words()
        for value in known if label else [""]:
            self.increase(value, 0.0)

    def increase(self, value: str = "", amount: float = 1) -> None:
        """Args:
        value: of the label, where the counter has one.
        """
        with self._lock:
            self._counts.add(value, amount)

    def render(self, name: str, constant: str = "") -> str:
        lines = [_head(name, self._text, "counter")]
        with self._lock:
            totals = self._counts.totals()
        for value, count in totals.items():
            own = labels({self._label: value}) if self._label else ""
            lines.append(f"{name}{_braced(own, constant)} {count!r}\n")
        return "".join(lines)


class Histogram:
    """Counts of observations up to each of some bounds, ascending, and their sum."""

    def __init__(
        self, name: str, text: str, bounds: Sequence[float], board: Board | None = None
    ) -> None:
        self.name = name
        self._text = text
        self.bounds = bounds
        self._lock = threading.Lock()
        board = board or Board()
        self._counts = board.integers(len(bounds) + 1)
        self._sum = board.floats(1)
        self._templates: dict[tuple[str, str], str] = {}

    def observe(self, value: float, times: int = 1) -> None:
        place = bisect_left(self.bounds, value)
        with self._lock:
            self._counts.own[place] += times
            self._sum.own[0] += value * times

    def render(self, name: str, constant: str = "") -> str:
        with self._lock:
            counts, (total,) = list(accumulate(self._counts.totals())), self._sum.totals()
        template = self._templates.get((name, constant))
        if template is None:
            template = self._templates[name, constant] = self._template(name, constant)
        return template % (*counts, total, counts[-1])

    def _template(self, name: str, constant: str) -> str:
        lines = [_head(name, self._text, "histogram")]
        for bound in (*map(repr, map(float, self.bounds)), "+Inf"):
            lines.append(f"{name}_bucket{_braced(constant, labels({'le': bound}))}")
        lines += [f"{name}_sum{_braced(constant)}", f"{name}_count{_braced(constant)}"]
        head, *samples = (line.replace("%", "%%") for line in lines)
        return head + "".join(f"{sample} %r\n" for sample in samples)


def labels(values: Mapping[str, object]) -> str:
    """`name="value"` of each, escaped, with commas between."""
    return ",".join(f'{name}="{_escaped(str(value))}"' for name, value in values.items())


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _braced(*groups: str) -> str:
    """Groups of labels as one, nothing where all are empty."""
    text = ",".join(filter(None, groups))
    return f"{{{text}}}" if text else ""


def _head(name: str, text: str, kind: Kind) -> str:
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"
