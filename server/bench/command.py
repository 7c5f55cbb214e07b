"""The command: flags to runs, runs to points, points to a table, a JSON file and a report."""

from __future__ import annotations

import argparse
import asyncio
import platform
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
from tqdm import tqdm

from server import __version__
from server.bench.arguments import run_of
from server.bench.calibrate import words_for
from server.bench.client import Measured, Server
from server.bench.load import closed_loop, open_loop
from server.bench.plan import BenchError, Load, Run, read_plan
from server.bench.report import report
from server.bench.result import Point, Result, load, save
from server.bench.scenarios import Scenario
from server.bench.summary import Limits, parse_limits, summarise
from server.bench.table import compare, missing, table

BUSY_CLIENT = 0.8
"""Share of a core from which on the client may well be what is slow."""


def run(arguments: argparse.Namespace) -> int:
    """Returns the exit status: 1 when nothing could be measured or a request failed."""
    try:
        if arguments.action == "compare":
            return _compare(load(arguments.a), load(arguments.b))
        runs = read_plan(arguments.plan) if arguments.plan else [run_of(arguments)]
        limits = parse_limits(arguments.goodput)
        server = Server(arguments.base_url, arguments.model, arguments.api_key)
        result = asyncio.run(measure(server, runs, limits))
    except BenchError as error:
        print(f"internvl-serve bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return _present(result, arguments.json, arguments.html)


async def measure(server: Server, runs: Sequence[Run], limits: Limits) -> Result:
    """Runs everything, one point after the other."""
    began_at = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        described = await server.describe()
        words = await words_for(server)
        points = [point for run in runs for point in await _points(server, run, words, limits)]
    finally:
        await server.close()
    versions = {"internvl-serve": __version__, "aiohttp": aiohttp.__version__}
    return Result(
        described, versions | {"Python": platform.python_version()}, began_at, limits, points
    )


async def _points(
    server: Server, run: Run, words: Callable[[int], int], limits: Limits
) -> list[Point]:
    scenario = Scenario(run, words)
    for _ in range(run.warmup):
        await _ask(server, run, scenario, time.perf_counter(), 0.0)
    return [await _point(server, run, scenario, load, limits) for load in run.loads()]


async def _point(server: Server, run: Run, scenario: Scenario, load: Load, limits: Limits) -> Point:
    with tqdm(total=run.requests, desc=f"{run.title}, {load}", disable=None) as bar:

        async def ask(epoch_s: float, due_s: float) -> Measured:
            measured = await _ask(server, run, scenario, epoch_s, due_s)
            bar.update()
            return measured

        cpu_s = time.process_time()
        if load.kind == "open":
            requests = await open_loop(ask, load.value, run.requests, run.seed)
        else:
            requests = await closed_loop(ask, int(load.value), run.requests)
        cpu_s = time.process_time() - cpu_s
    return Point(run, load, summarise(requests, limits, cpu_s), requests)


async def _ask(
    server: Server, run: Run, scenario: Scenario, epoch_s: float, due_s: float
) -> Measured:
    job = scenario.next()
    fields = {"messages": job.messages, "max_tokens": run.output_tokens, **job.options}
    if not run.natural_stops and not job.options:
        fields["ignore_eos"] = True
    measured, text = await server.ask(fields, epoch_s=epoch_s, due_s=due_s)
    if measured.error is None:
        job.answered(text)
    return measured


def _present(result: Result, json_path: Path | None, html_path: Path | None) -> int:
    print(table(result))
    failures = [r.error for point in result.points for r in point.requests if r.error is not None]
    if failures:
        print(f"{len(failures)} requests failed; the first: {failures[0]}", file=sys.stderr)
    if any(point.summary.client_cpu_share > BUSY_CLIENT for point in result.points):
        print("this client kept a core busy: it may be what is slow", file=sys.stderr)
    if json_path:
        save(result, json_path)
    if html_path:
        html_path.write_text(report(result), encoding="utf-8")
    return 1 if failures else 0


def _compare(a: Result, b: Result) -> int:
    print(f"A: {_who(a)}\nB: {_who(b)}\n")
    print(compare(a, b))
    if only := missing(a, b):
        print(f"\nonly in one of them: {'; '.join(only)}")
    return 0


def _who(result: Result) -> str:
    version = result.server.get("version")
    told = version.get("version") if isinstance(version, dict) else "version not told"
    return f"{result.server['base_url']} {result.server['model']} ({told}), {result.began_at}"
