"""What was measured, as tables: medians over the rounds, and ratios inside one run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import median

from benchmarks.peers.record import Pass, Record, Row

OURS = "ours"
FOREIGN = 0.1


def report(measured: Record) -> str:
    peers = list(dict.fromkeys(one.peer for one in measured.passes))
    parts = [", ".join(f"{name}: {value}" for name, value in measured.machine.items())]
    parts.append("tokens/s · first token ms · TPOT ms; * others used the machine meanwhile")
    parts.append(_table(_rows(measured, peers)))
    parts.append(_table(_processes(measured.passes, peers)))
    if measured.floor:
        floors = [[name, f"{value:.1f}"] for name, value in measured.floor.items()]
        parts.append(_table([["torch alone", "ms"], *floors]))
    return "\n\n".join(parts)


def _rows(measured: Record, peers: Sequence[str]) -> Iterator[list[str]]:
    others = [peer for peer in peers if not peer.startswith(OURS)]
    ratios = [f"ours / {peer}" for peer in others]
    yield ["row", *peers, *ratios]
    for title in dict.fromkeys(row.title for one in measured.passes for row in one.rows):
        rates = {peer: _median(measured, peer, title, _rate) for peer in peers}
        compared = [f"{rates[OURS] / rates[peer]:.2f}" if OURS in rates else "-" for peer in others]
        yield [title, *(_cell(measured, peer, title) for peer in peers), *compared]


def _cell(measured: Record, peer: str, title: str) -> str:
    rate, first, each, foreign = (
        _median(measured, peer, title, figure) for figure in (_rate, _first, _each, _foreign)
    )
    mark = "*" if foreign > FOREIGN else ""
    return f"{rate:.0f} · {first:.0f} · {each:.1f}{mark}"


def _median(measured: Record, peer: str, title: str, figure: Callable[[Row], float]) -> float:
    rows = [row for one in measured.passes if one.peer == peer for row in one.rows]
    return median([figure(row) for row in rows if row.title == title] or [float("nan")])


def _rate(row: Row) -> float:
    return row.summary.output_tokens_per_s


def _first(row: Row) -> float:
    return row.summary.ttft_ms.p50 if row.summary.ttft_ms else float("nan")


def _each(row: Row) -> float:
    return row.summary.tpot_ms.p50 if row.summary.tpot_ms else float("nan")


def _foreign(row: Row) -> float:
    return row.foreign


def _processes(passes: Sequence[Pass], peers: Sequence[str]) -> Iterator[list[str]]:
    yield ["", *peers]
    figures: dict[str, Callable[[Pass], str]] = {
        "command to the first answer, s": lambda one: f"{one.ready_s:.1f}",
        "memory, MB": lambda one: f"{one.memory_bytes / 1e6:.0f}",
        "idle, % of a core": lambda one: f"{100 * one.idle_cores:.2f}",
    }
    for name, figure in figures.items():
        cells = [[figure(one) for one in passes if one.peer == peer] for peer in peers]
        yield [name, *(sorted(values, key=float)[len(values) // 2] for values in cells)]


def _table(rows: Sequence[list[str]] | Iterator[list[str]]) -> str:
    head, *others = rows
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *others]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
