"""A result as one HTML file with its plots in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from itertools import groupby
from operator import attrgetter

from server.bench.result import Point, Result
from server.bench.summary import Spread, Summary
from server.bench.svg import Line, chart
from server.bench.table import HEAD, row

STYLE = (
    "body{font:14px sans-serif;margin:2em;color:#222}table{border-collapse:collapse}"
    "td,th{padding:3px 9px;border-bottom:1px solid #ddd;text-align:right}"
    "td:first-child,th:first-child{text-align:left}svg{margin:6px}dt{font-weight:bold}"
)
LOAD_NAMES = {"open": "requests/s sent", "closed": "requests open"}
CDF_POINTS = 200


def report(result: Result) -> str:
    server, client = result.server, result.client
    facts = {
        "server": f"{server.get('base_url')}, model {server.get('model')}",
        "its version": _version(server.get("version")),
        "measured by": ", ".join(f"{name} {version}" for name, version in client.items()),
        "began": result.began_at,
        "limits of goodput": ", ".join(f"{k} {v:g} ms" for k, v in result.limits.items()) or "none",
        "the client itself": _overhead(result.points),
    }
    listed = "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in facts.items())
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Benchmark</title>'
        f"<style>{STYLE}</style><h1>Benchmark</h1><dl>{listed}</dl>"
        f"<p>Times in milliseconds.</p>{_table(result.points)}"
        f"{''.join(_plots(list(points)) for points in _groups(result.points))}</html>\n"
    )


def _groups(points: Sequence[Point]) -> list[list[Point]]:
    """Points of one run and one kind of load, by load."""
    key = attrgetter("run.title", "load.kind")
    ordered = sorted(points, key=attrgetter("run.title", "load.kind", "load.value"))
    return [list(group) for _, group in groupby(ordered, key)]


def _table(points: Sequence[Point]) -> str:
    rows = [f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in HEAD)}</tr>"]
    rows += [
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row(point))}</tr>" for point in points
    ]
    return f"<table>{''.join(rows)}</table>"


def _plots(points: list[Point]) -> str:
    load = LOAD_NAMES[points[0].load.kind]
    plots = [_cdf(points)]
    if len(points) > 1:
        plots = [
            _latency("Time to first token", load, points, lambda s: s.ttft_ms),
            _latency("Time per output token", load, points, lambda s: s.tpot_ms),
            _throughput(load, points),
            *plots,
        ]
    return f"<h2>{escape(points[0].run.title)}</h2>{''.join(plots)}"


def _latency(
    title: str, load: str, points: list[Point], read: Callable[[Summary], Spread | None]
) -> str:
    spreads = [(point.load.value, spread) for point in points if (spread := read(point.summary))]
    lines = [
        Line(name, [(x, getattr(spread, name)) for x, spread in spreads])
        for name in ("p50", "p90", "p99")
    ]
    return chart(title, load, "ms", lines)


def _throughput(load: str, points: list[Point]) -> str:
    done = [(point.load.value, point.summary.output_tokens_per_s) for point in points]
    return chart("Throughput", load, "output tokens/s", [Line("output tokens/s", done)])


def _cdf(points: list[Point]) -> str:
    lines = []
    for point in points:
        times = sorted(
            r.first_token_s * 1000 for r in point.requests if r.first_token_s is not None
        )
        every = max(1, len(times) // CDF_POINTS)
        share = [(time, 100 * (index + 1) / len(times)) for index, time in enumerate(times)]
        lines.append(Line(str(point.load), share[::every] + share[-1:]))
    return chart("Requests with a first token by then", "ms", "%", lines, dots=False)


def _version(version: object) -> str:
    return str(version.get("version")) if isinstance(version, dict) else "not told"


def _overhead(points: Sequence[Point]) -> str:
    lag = max((point.summary.lag_p99_ms for point in points), default=0.0)
    share = max((point.summary.client_cpu_share for point in points), default=0.0)
    return f"requests sent at most {lag:.1f} ms late (p99), {share:.0%} of a core at most"
