"""The demo model's right answers for each way of serving it, as a table.

    python -m benchmarks.eval_ways [--scenes N] [--model FOLDER] [WAY ...]

Each row is `benchmarks.eval_demo` over a daemon of its own: the same questions, greedy, held
against the first row. How a model is served must not change what it sees.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.eval_demo import Result, ask_all, serving, shares
from server.demo.exam import Question, draw_exam


@dataclass(frozen=True, slots=True)
class Way:
    flags: tuple[str, ...] = ()
    """Of serve."""
    stream: bool = False
    concurrency: int = 16
    rounds: int = 1
    """How often everything is asked; the last time counts."""


WAYS: Mapping[str, Way] = {
    "16 at a time": Way(),
    "streamed": Way(stream=True),
    "one at a time": Way(concurrency=1),
    "in chunks of 64 positions": Way(("--step-token-budget", "64")),
    "without prefix cache": Way(("--no-prefix-cache",)),
    "asked before": Way(rounds=2),
    "bfloat16": Way(("--dtype", "bfloat16")),
    "float32": Way(("--dtype", "float32")),
    "int8": Way(("--quantization", "int8")),
    "int4": Way(("--quantization", "int4")),
    "2 ranks": Way(("--tensor-parallel-size", "2")),
    "3 ranks": Way(("--tensor-parallel-size", "3")),
    "2 stages": Way(("--pipeline-parallel-size", "2")),
    "int8, 2 ranks": Way(("--quantization", "int8", "--tensor-parallel-size", "2")),
    "int4, 2 ranks": Way(("--quantization", "int4", "--tensor-parallel-size", "2")),
}


@dataclass(frozen=True, slots=True)
class Row:
    way: str
    right: float
    """Share of right answers among all scored questions."""
    same: float
    """Share of answers that are those of the first row, letter for letter."""


def measure(way: Way, questions: Sequence[Question], model: Path | None) -> list[Result]:
    """The results of the last round."""
    with serving(model, way.flags) as url:
        for _ in range(way.rounds):
            asked = ask_all(url, questions, stream=way.stream, concurrency=way.concurrency)
            results = asyncio.run(asked)
    return results


def compare(way: str, results: Sequence[Result], first: Sequence[Result]) -> Row:
    pairs = zip(results, first, strict=True)
    same = sum(one.answer == other.answer for one, other in pairs) / len(results)
    return Row(way, shares(results)["all scored"]["both"], same)


def show(rows: Sequence[Row]) -> str:
    """Markdown; differences in points from the first row."""
    lines = ["| served | right | points | same answers |", "| --- | ---: | ---: | ---: |"]
    for row in rows:
        points = 100 * (row.right - rows[0].right)
        lines.append(f"| {row.way} | {row.right:.1%} | {points:+.1f} | {row.same:.1%} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Right answers by way of serving.")
    parser.add_argument("ways", nargs="*", default=list(WAYS), metavar="WAY", help=f"{list(WAYS)}")
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size-px", type=int, default=224, help="picture size of the model")
    parser.add_argument("--model", type=Path, help="a checkpoint; default: what is served alone")
    arguments = parser.parse_args()
    questions = draw_exam(arguments.scenes, size_px=arguments.size_px, seed=arguments.seed)
    rows: list[Row] = []
    first: list[Result] = []
    for way in arguments.ways:
        results = measure(WAYS[way], questions, arguments.model)
        first = first or results
        rows.append(compare(way, results, first))
        print(show(rows), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
