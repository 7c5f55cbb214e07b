"""The flags of `bench`; apart from the rest, so that other commands need not load it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, get_args

from server.bench.plan import BenchError, Run, ScenarioName

BASE_URL = "http://localhost:8000/v1"


def add_command(commands: Any) -> None:
    """Adds `bench` to the subcommands of a parser."""
    bench = commands.add_parser("bench", help="put load on any OpenAI-compatible server")
    bench.add_argument("--base-url", default=BASE_URL, help=f"of the API [{BASE_URL}]")
    bench.add_argument("--model", help="its name; the first one that is listed by default")
    bench.add_argument("--api-key", default="none", help="where the server wants one")
    bench.add_argument("--plan", type=Path, metavar="FILE", help="TOML with [[run]] tables")
    bench.add_argument("--scenario", choices=get_args(ScenarioName), default="text")
    bench.add_argument("--rate", default="", metavar="R,R", help="open loop: requests/s, a sweep")
    bench.add_argument(
        "--concurrency", default="", metavar="N,N", help="closed loop: open requests"
    )
    bench.add_argument("--requests", type=int, default=64, help="in each point [64]")
    bench.add_argument("--warmup", type=int, default=4, help="requests before each run [4]")
    bench.add_argument("--prompt-tokens", type=int, help="of the text, as the server counts")
    bench.add_argument("--output-tokens", type=int, default=64, help="of each answer [64]")
    bench.add_argument("--turns", type=int, default=4, help="of a conversation [4]")
    bench.add_argument("--natural-stops", action="store_true", help="let the model end its answers")
    bench.add_argument("--seed", type=int, default=0)
    bench.add_argument(
        "--goodput", action="append", default=[], metavar="ttft:MS", help="limit; also tpot, e2e"
    )
    bench.add_argument("--json", type=Path, metavar="FILE", help="write the result")
    bench.add_argument("--html", type=Path, metavar="FILE", help="write a report with plots")
    actions = bench.add_subparsers(dest="action", metavar="")
    comparison = actions.add_parser("compare", help="ratios of two results")
    comparison.add_argument("a", type=Path)
    comparison.add_argument("b", type=Path)


def run_of(arguments: argparse.Namespace) -> Run:
    try:
        return Run(
            scenario=arguments.scenario,
            prompt_tokens=arguments.prompt_tokens,
            output_tokens=arguments.output_tokens,
            rates=[float(word) for word in arguments.rate.split(",") if word],
            concurrencies=[int(word) for word in arguments.concurrency.split(",") if word],
            requests=arguments.requests,
            warmup=arguments.warmup,
            turns=arguments.turns,
            natural_stops=arguments.natural_stops,
            seed=arguments.seed,
        )
    except ValueError as error:
        raise BenchError(str(error)) from None
