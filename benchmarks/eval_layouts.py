"""The demo model's share of right answers for each quantization and layout, as a table.

    python -m benchmarks.eval_layouts [--scenes N] [--model FOLDER] [--ranks 1 2 3]
        [--quantizations none int8 int4] [-- FLAGS OF serve]

Every cell is `benchmarks.eval_demo` over a daemon of its own: the same questions, greedy. The share
of the unquantised model on one rank is what the others are compared with.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from benchmarks.eval_demo import ask_all, serving, shares
from server.demo.exam import Question, draw_exam
from server.settings import Quantization

CONCURRENCY = 16


@dataclass(frozen=True, slots=True)
class Cell:
    quantization: str
    ranks: int
    right: float
    """Share of right answers among all scored questions."""


def measure(
    questions: Sequence[Question],
    model: Path | None,
    quantization: str,
    ranks: int,
    flags: Sequence[str],
) -> Cell:
    own = ["--quantization", quantization, "--tensor-parallel-size", str(ranks)]
    with serving(model, [*own, *flags]) as url:
        asked = ask_all(url, questions, stream=False, concurrency=CONCURRENCY)
        table = shares(asyncio.run(asked))
    return Cell(quantization, ranks, table["all scored"]["both"])


def show(cells: Sequence[Cell]) -> str:
    """Markdown; differences in points from the first cell."""
    lines = [
        "| quantization | ranks | right | difference in points |",
        "| --- | ---: | ---: | ---: |",
    ]
    for cell in cells:
        points = 100 * (cell.right - cells[0].right)
        lines.append(
            f"| {cell.quantization} | {cell.ranks} | {100 * cell.right:.1f} % | {points:+.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Right answers by quantization and layout.")
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size-px", type=int, default=224, help="picture size of the model")
    parser.add_argument("--model", type=Path, help="a checkpoint; default: what is served alone")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument(
        "--quantizations",
        nargs="+",
        choices=get_args(Quantization),
        default=["none", "int8", "int4"],
    )
    parser.add_argument("flags", nargs="*", help="of serve, behind --")
    arguments = parser.parse_args()
    questions = draw_exam(arguments.scenes, size_px=arguments.size_px, seed=arguments.seed)
    cells: list[Cell] = []
    for quantization in arguments.quantizations:
        for ranks in arguments.ranks:
            flags = arguments.flags
            cells.append(measure(questions, arguments.model, quantization, ranks, flags))
            print(show(cells), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
