"""What serving costs beside the model: the daemon with `--load-format null`, and clients that cost
little, each in processes of their own.

Prints tokens a second to many streaming clients, the jitter that they see, and the CPU time of each
process per token; the same at a pace that models have; the share of a core that an idle daemon
takes, and how long it takes to start. Floors are servers that write the same bytes and do nothing
else. Compare CPU times: they hold on a busy machine, rates do not.

    python -m benchmarks.frontend [--clients 256] [--tokens 2000] [--flags="--no-vllm-metrics"]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from server.demo.random_checkpoint import write_random_checkpoint

MODEL = "null"
START_S = 300.0
IDLE_S = 10.0
PACED_CLIENTS, PACED_STEP_MS = 32, 32.0
"""1,000 tokens a second."""


@dataclass(frozen=True, slots=True)
class Started:
    """A running server and how it came to run."""

    url: str
    process: psutil.Process
    alive_s: float = 0.0
    ready_s: float = 0.0

    def cpu_s(self) -> dict[str, float]:
        """CPU time so far by role; API processes count together."""
        spent: dict[str, float] = {}
        for one in (self.process, *self.process.children(recursive=True)):
            spent[role(one)] = spent.get(role(one), 0.0) + sum(one.cpu_times()[:2])
        return spent


def role(process: psutil.Process) -> str:
    modules = [part for part in process.cmdline() if part.startswith(("server.", "benchmarks."))]
    return modules[0].split(".")[-1].removesuffix("_process") if modules else "supervisor"


@contextmanager
def daemon(checkpoint: Path, *flags: str) -> Iterator[Started]:
    """A daemon without a model, ready."""
    with tempfile.TemporaryFile("w+") as log, httpx.Client() as http:
        command = [sys.executable, "-P", "-m", "server", "serve", "--load-format", "null"]
        command += ["--model", str(checkpoint), "--served-model-name", MODEL]
        command += ["--host", "127.0.0.1", "--port", "0", *flags]
        began_at = time.monotonic()
        process = subprocess.Popen(command, stderr=log)
        try:
            url = wait_for(lambda: address_in(log), process)
            alive_s = wait_for(lambda: answers(http, f"{url}/livez"), process) and passed(began_at)
            ready_s = wait_for(lambda: answers(http, f"{url}/readyz"), process) and passed(began_at)
            yield Started(url, psutil.Process(process.pid), alive_s, ready_s)
        finally:
            process.terminate()
            process.wait(timeout=30)


def passed(since: float) -> float:
    return time.monotonic() - since


def wait_for(look: Any, process: subprocess.Popen[Any]) -> Any:
    deadline = time.monotonic() + START_S
    while not (found := look()):
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit("the daemon did not start")
        time.sleep(0.05)
    return found


def address_in(log: Any) -> str | None:
    log.seek(0)
    return next((word for word in log.read().split() if word.startswith("http://")), None)


def answers(http: httpx.Client, url: str) -> bool:
    try:
        return http.get(url).status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def floor(kind: str) -> Iterator[Started]:
    """A server that writes frames and does nothing else."""
    command = [sys.executable, "-m", "benchmarks.frontend_floor", kind]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield Started(process.stdout.readline().strip(), psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait(timeout=30)


def stream(server: Started, clients: int, tokens: int) -> tuple[dict[str, Any], dict[str, float]]:
    """What the clients saw, and the CPU time of each process in microseconds a token."""
    before = server.cpu_s()
    command = [sys.executable, "-m", "benchmarks.stream_clients", server.url]
    command += ["--model", MODEL, "--clients", str(clients), "--tokens", str(tokens)]
    seen = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    spent = {name: after - before.get(name, 0.0) for name, after in server.cpu_s().items()}
    spent["clients"] = seen["cpu_s"]
    return seen, {name: 1e6 * cpu_s / seen["tokens"] for name, cpu_s in spent.items()}


def row(name: str, seen: Mapping[str, Any], cost: Mapping[str, float]) -> str:
    api = cost.get("api", cost.get("frontend_floor", 0.0))
    rate = seen["tokens"] / seen["seconds"]
    return (
        f"| {name} | {rate:.0f} | {seen['tokens'] / seen['frames']:.1f} "
        f"| {seen['tokens'] / seen['reads']:.1f} | {seen['gap_p50_ms']:.1f} "
        f"| {seen['gap_p99_ms']:.1f} | {seen['jitter_p99_ms']:.1f} | {api:.1f} "
        f"| {cost.get('engine', 0.0):.1f} | {cost['clients']:.1f} | {api * rate / 1e4:.1f} % |"
    )


HEAD = (
    "| | tokens/s | tokens a frame | a read | gap p50 ms | p99 | jitter p99 ms "
    "| api us/token | engine | clients | api's share of a core |\n"
    "| --- |" + " ---: |" * 10
)


def idle_share(server: Started) -> float:
    """Of a core, all processes together."""
    time.sleep(2)
    before = sum(server.cpu_s().values())
    time.sleep(IDLE_S)
    return (sum(server.cpu_s().values()) - before) / IDLE_S


def main() -> None:
    parser = argparse.ArgumentParser(description="What serving costs beside the model.")
    parser.add_argument("--clients", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--paced-tokens", type=int, default=300)
    parser.add_argument("--flags", default="", help="more flags of the daemon")
    parser.add_argument("--only", choices=["free", "paced", "floors", "idle"], nargs="+")
    arguments = parser.parse_args()
    wanted = set(arguments.only or ["free", "paced", "floors", "idle"])
    load = psutil.getloadavg()[0]
    print(f"{psutil.cpu_count()} cores, load before: {load:.1f}\n\n{HEAD}", flush=True)
    for kind in ("asyncio", "uvicorn") if "floors" in wanted else ():
        with floor(kind) as server:
            seen, cost = stream(server, arguments.clients, arguments.tokens)
            print(row(f"floor: {kind}", seen, cost), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder)
        write_random_checkpoint(checkpoint)
        flags = arguments.flags.split()
        if wanted & {"free", "idle"}:
            with daemon(checkpoint, "--max-num-seqs", str(arguments.clients), *flags) as server:
                share = idle_share(server) if "idle" in wanted else 0.0
                if "free" in wanted:
                    seen, cost = stream(server, arguments.clients, arguments.tokens)
                    print(row(f"{arguments.clients} clients", seen, cost), flush=True)
        if "paced" in wanted:
            with daemon(checkpoint, "--null-step-ms", str(PACED_STEP_MS), *flags) as paced:
                seen, cost = stream(paced, PACED_CLIENTS, arguments.paced_tokens)
                print(row(f"{PACED_CLIENTS} clients, paced", seen, cost), flush=True)
    if "idle" in wanted:
        print(f"\nidle: {100 * share:.2f} % of a core, all processes together")
        print(f"from command to alive {server.alive_s:.1f} s, to ready {server.ready_s:.1f} s")


if __name__ == "__main__":
    main()
