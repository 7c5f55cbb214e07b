"""Two results beside each other."""

from __future__ import annotations

from server.bench.client import Measured
from server.bench.plan import Load, Run
from server.bench.result import Point, Result
from server.bench.summary import Limits, summarise
from server.bench.table import compare

FAST = Measured(0.0, 0.001, 1.0, 0.2, [0.1] * 8, 10, 4, 9, "length")
FAILED = Measured(0.0, 0.0, 9.0, error="HTTP 500")


def result(request: Measured, limits: Limits) -> Result:
    summary = summarise([request], limits, cpu_seconds=0.0)
    return Result({}, {}, "", limits, [Point(Run(), Load("closed", 1), summary, [])])


def compared(a: Result, b: Result) -> dict[str, list[str]]:
    """A's figure, B's and their ratio, by the figure's name."""
    lines = compare(a, b).splitlines()[1:]
    cells = [line.removeprefix("text, c=1").rsplit(maxsplit=3) for line in lines]
    return {name.strip(): figures for name, *figures in cells}


def test_a_figure_that_fell_to_zero_is_shown() -> None:
    good, bad = result(FAST, {"e2e": 1000.0}), result(FAST, {"e2e": 1.0})
    assert compared(good, bad)["goodput req/s"] == ["1", "0", "0.000"]
    assert compared(bad, good)["goodput req/s"] == ["0", "1", "-"]


def test_a_figure_that_only_one_has_is_shown_without_a_ratio() -> None:
    figures = compared(result(FAST, {}), result(FAILED, {}))
    assert figures["E2E p50 ms"] == ["1000", "-", "-"]
    assert "goodput req/s" not in figures
