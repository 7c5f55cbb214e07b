"""Ours and its peers on this machine: the same checkpoint, rows and load generator, in turn.

    benchmarks/peers/install vllm llama.cpp openvino
    python -m benchmarks.peers [--peers ours vllm ...] [--rounds 3] [--out .cache/peers/result.json]

Starts each installed server in turn, asks for one answer, measures idle CPU, runs the rows of
`rows.toml`, and ends it; then the next round. A row that others disturbed by more than a tenth of
a core is run again. What has been measured is kept, and `--resume` goes on from there. Prints
medians over the rounds as tables, with the floor of torch alone (`floor.py`) and ratios; with
`--report` it does no more than that.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import httpx
import msgspec
import psutil

from benchmarks.peers import record
from benchmarks.peers.floor import floor
from benchmarks.peers.machine import Cores, idle_cores, memory_bytes, tree, wait_until
from benchmarks.peers.record import Pass, Record, Row
from benchmarks.peers.report import report
from benchmarks.peers.servers import INSTALLED, Peer, installed
from server.bench.client import Server
from server.bench.command import measure
from server.bench.plan import Run, read_plan
from server.demo.random_checkpoint import MID, write_random_checkpoint
from server.listening import listen

ROWS = Path(__file__).parent / "rows.toml"
START_S = 600.0
IDLE_S = 5.0
FOREIGN, TRIES = 0.1, 3
"""Cores that others may use during a row, and how often it is run in the hope of less."""


@dataclass(frozen=True, slots=True)
class Started:
    url: str
    process: psutil.Process
    ready_s: float


@contextmanager
def started(peer: Peer, checkpoint: Path) -> Iterator[Started]:
    """A server that has answered once; ended by its pid, and its children by theirs.

    Raises:
        SystemExit: it does not answer; with the end of what it printed.
    """
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/v1"
    with tempfile.TemporaryFile("w+") as log, httpx.Client(base_url=url, timeout=60) as http:
        began_s = time.monotonic()
        process = subprocess.Popen(
            peer.command(checkpoint, port),
            env=os.environ | peer.environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            if not wait_until(lambda: process.poll() is not None or answers(http), START_S) or (
                process.poll() is not None
            ):
                log.seek(0)
                raise SystemExit(f"{peer.name} did not start:\n{log.read()[-2000:]}")
            yield Started(url, psutil.Process(process.pid), time.monotonic() - began_s)
        finally:
            end(process)


def answers(http: httpx.Client) -> bool:
    body = {"model": "mid", "max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]}
    try:
        return http.post("/chat/completions", json=body).status_code == 200
    except httpx.TransportError:
        return False


def end(process: subprocess.Popen[bytes]) -> None:
    family = [] if process.poll() is not None else tree(psutil.Process(process.pid))
    process.terminate()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
    for one in psutil.wait_procs(family, timeout=10)[1]:
        one.kill()


def run_pass(peer: Peer, checkpoint: Path, runs: Sequence[Run], number: int) -> Pass:
    with started(peer, checkpoint) as server:
        print(f"{peer.name}, round {number}: ready in {server.ready_s:.1f} s", flush=True)
        idle = idle_cores(server.process, IDLE_S)
        first = number * len(runs)
        rows = [run_row(server, run, seed) for seed, run in enumerate(runs, start=first)]
        used = memory_bytes(server.process)
        return Pass(peer.name, number, server.ready_s, idle, used, rows)


def run_row(server: Started, run: Run, seed: int) -> Row:
    """The least disturbed of a few tries, each with prompts that the server has not seen.

    Args:
        seed: of this row in this round alone.

    Raises:
        SystemExit: a request failed: rates without it would flatter.
    """
    tries: list[Row] = []
    while not tries or (tries[-1].foreign > FOREIGN and len(tries) < TRIES):
        cores = Cores(server.process)
        fresh = msgspec.structs.replace(run, seed=TRIES * seed + len(tries))
        result = asyncio.run(measure(Server(server.url, "mid", "none"), [fresh], {}))
        (point,) = result.points
        if point.summary.failed:
            errors = [request.error for request in point.requests if request.error]
            raise SystemExit(f"{point.title}: {len(errors)} failed; the first: {errors[0]}")
        tries.append(Row(point.title, point.summary, cores.foreign()))
        print(f"  {line(tries[-1])}", flush=True)
    return min(tries, key=lambda row: row.foreign)


def line(row: Row) -> str:
    figures = row.summary
    ttft, tpot = (spread.p50 if spread else 0 for spread in (figures.ttft_ms, figures.tpot_ms))
    return (
        f"{row.title}: {figures.output_tokens_per_s:.1f} tokens/s, first {ttft:.0f} ms, "
        f"then {tpot:.1f} ms; others used {row.foreign:.2f} cores"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Ours and its peers, side by side.")
    there = installed()
    parser.add_argument("--peers", nargs="+", choices=sorted(there), default=list(there))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", default="", help="only those whose name contains it")
    parser.add_argument("--out", type=Path, default=INSTALLED / "result.json")
    parser.add_argument("--resume", action="store_true", help="go on with what is in the file")
    parser.add_argument("--no-floor", action="store_true")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    if arguments.report:
        print(report(record.load(arguments.out) or sys.exit("nothing measured yet")))
        return
    checkpoint = INSTALLED / "mid"
    if not (checkpoint / "model.safetensors.index.json").exists():
        write_random_checkpoint(checkpoint, shape=MID)
    runs = [run for run in read_plan(ROWS) if arguments.rows in run.name]
    machine = {"cores": str(os.cpu_count()), "cpu": cpu_name(), "python": platform.python_version()}
    measured = (arguments.resume and record.load(arguments.out)) or Record(machine)
    done = {(one.round, one.peer) for one in measured.passes}
    for number, name in product(range(arguments.rounds), arguments.peers):
        if (number, name) not in done:
            measured.passes.append(run_pass(there[name], checkpoint, runs, number))
            record.save(measured, arguments.out)
    if not arguments.no_floor:
        measured.floor = floor(checkpoint)
        record.save(measured, arguments.out)
    print(report(measured))


def cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [text.partition(":")[2].strip() for text in lines if text.startswith("model name")]
    flags = next((text for text in lines if text.startswith("flags")), "")
    wide = [
        flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags.split()
    ]
    return f"{names[0] if names else platform.processor()} ({', '.join(wide)})"


if __name__ == "__main__":
    main()
