"""Results as lines of text: one result's points, or two results as ratios."""

from __future__ import annotations

from collections.abc import Sequence

from server.bench.result import Point, Result
from server.bench.summary import Spread, Summary

HEAD = (
    *("point", "ok", "failed", "req/s", "out tok/s"),
    *("TTFT p50", "p99", "TPOT p50", "p99", "ITL p99", "E2E p50"),
)

COMPARED = (
    *(("req/s", "requests_per_s", ""), ("out tok/s", "output_tokens_per_s", "")),
    *(("goodput req/s", "good_requests_per_s", ""),),
    *(("TTFT p50 ms", "ttft_ms", "p50"), ("TTFT p99 ms", "ttft_ms", "p99")),
    *(("TPOT p50 ms", "tpot_ms", "p50"), ("ITL p99 ms", "itl_ms", "p99")),
    *(("E2E p50 ms", "e2e_ms", "p50"),),
)
"""Name, field of a `Summary`, and which figure of it where it is a `Spread`."""


def table(result: Result) -> str:
    return _columns([HEAD, *(row(point) for point in result.points)])


def row(point: Point) -> tuple[str, ...]:
    """Times in milliseconds."""
    s = point.summary
    return (
        point.title,
        str(s.completed),
        str(s.failed),
        f"{s.requests_per_s:.2f}",
        f"{s.output_tokens_per_s:.1f}",
        *(_ms(s.ttft_ms, "p50"), _ms(s.ttft_ms, "p99")),
        *(_ms(s.tpot_ms, "p50"), _ms(s.tpot_ms, "p99")),
        *(_ms(s.itl_ms, "p99"), _ms(s.e2e_ms, "p50")),
    )


def compare(a: Result, b: Result) -> str:
    """B's figures over A's, for each point that both have; `-` where there is none."""
    others = {point.title: point for point in b.points}
    rows: list[tuple[str, ...]] = [("point", "figure", "A", "B", "B/A")]
    for point in a.points:
        other = others.get(point.title)
        for name, field, figure in COMPARED if other else ():
            before = _figure(point.summary, field, figure)
            after = _figure(other.summary, field, figure) if other else None
            if before is None and after is None:
                continue
            ratio = f"{after / before:.3f}" if before and after is not None else "-"
            both = ("-" if value is None else f"{value:.4g}" for value in (before, after))
            rows.append((point.title, name, *both, ratio))
    return _columns(rows)


def missing(a: Result, b: Result) -> list[str]:
    """Points that only one of them has."""
    return sorted({point.title for point in a.points} ^ {point.title for point in b.points})


def _figure(summary: Summary, field: str, figure: str) -> float | None:
    value = getattr(summary, field)
    found: float | None = getattr(value, figure) if figure and value is not None else value
    return found


def _ms(spread: Spread | None, name: str) -> str:
    return "-" if spread is None else f"{getattr(spread, name):.1f}"


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for cells in rows:
        first, *others = zip(cells, widths, strict=True)
        lines.append("  ".join([first[0].ljust(first[1]), *(c.rjust(w) for c, w in others)]))
    return "\n".join(lines)
