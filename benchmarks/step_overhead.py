"""What Python adds to a steady decode step.

Prints microseconds per step at several numbers of running requests, for the engine with a runner
that computes nothing: `schedule` (the next plan), `retire` (tokens into requests and deltas),
`turn` (both, and the wire); and for the real runner with a model of no layers: `inputs and
sampling`, all that a step does around the layers. The engine's part overlaps with the step that
is being computed; the runner's is on its path.

    python -m benchmarks.step_overhead [--requests 1 8 32 128] [--steps 2000]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from array import array
from concurrent.futures import Future
from pathlib import Path

import msgspec
import torch

from server.demo.random_checkpoint import write_random_checkpoint
from server.engine.loop import Engine
from server.engine.plan import RunnerLimits
from server.engine.request import Matcher
from server.engine.scheduler import Scheduler
from server.ipc import EngineEndpoint
from server.kernels.attention import KVCache
from server.messages import Grammar, Ready, SamplingParams, Submit
from server.model.spec import ModelSpec
from server.model.weights import load_model
from server.runner.null import NullRunner
from server.runner.runner import LocalRunner

PROMPT_TOKENS = 64
SCRIPT = (1,)
"""What every request is answered."""


class NoCompiler:
    """For requests without grammars."""

    def compile(self, grammar: Grammar) -> Future[Matcher]:
        raise AssertionError("nothing here has a grammar")


def limits(requests: int, steps: int) -> RunnerLimits:
    length = PROMPT_TOKENS + steps + 16
    return RunnerLimits(
        slots=requests,
        kv_blocks=requests * (length // 16 + 2),
        kv_block_size=16,
        image_slots=1,
        image_cost_tokens=176,
        step_token_budget=PROMPT_TOKENS * requests,
        max_model_len=length,
        vocab_size=64007,
        tokens_per_image=256,
        image_bytes=3 * 448**2,
    )


def submit(request_id: int, max_tokens: int) -> Submit:
    return Submit(
        id=request_id,
        prompt=array("i", [request_id] * PROMPT_TOKENS).tobytes(),
        images=[],
        sampling=SamplingParams(),
        max_tokens=max_tokens,
        stop_ids=[7],
    )


def scheduler_times_us(requests: int, steps: int) -> tuple[float, float]:
    """Medians of schedule and retire."""
    room = limits(requests, steps)
    runner, scheduler = NullRunner(room, SCRIPT), Scheduler(room)
    for request_id in range(requests):
        scheduler.submit(b"api-0", submit(request_id, steps + 8), [])
    plan = scheduler.schedule()
    assert plan is not None
    pending = runner.launch(plan)
    schedule_s, retire_s = [], []
    for _ in range(steps):
        begin = time.perf_counter()
        plan = scheduler.schedule()
        middle = time.perf_counter()
        assert plan is not None
        launched = runner.launch(plan)
        result = pending.result()
        pending = launched
        retiring = time.perf_counter()
        scheduler.retire(result)
        retire_s.append(time.perf_counter() - retiring)
        schedule_s.append(middle - begin)
    return statistics.median(schedule_s) * 1e6, statistics.median(retire_s) * 1e6


def turn_time_us(requests: int, steps: int) -> float:
    """Median of a turn of the whole loop, with a socket that nobody reads."""
    room = limits(requests, steps)
    scheduler = Scheduler(room)
    for request_id in range(requests):
        scheduler.submit(b"api-0", submit(request_id, steps + 8), [])
    ready = Ready(
        max_model_len=room.max_model_len,
        max_num_seqs=requests,
        kv_blocks=room.kv_blocks,
        kv_block_size=room.kv_block_size,
        step_token_budget=room.step_token_budget,
        dtype="none",
        device="none",
        ranks=1,
    )
    with tempfile.TemporaryDirectory() as run_dir:
        endpoint = EngineEndpoint(Path(run_dir))
        engine = Engine(NullRunner(room, SCRIPT), endpoint, scheduler, NoCompiler(), ready)
        times_s = []
        for _ in range(steps):
            begin = time.perf_counter()
            engine.step(wait_s=0)
            times_s.append(time.perf_counter() - begin)
        endpoint.close()
    return statistics.median(times_s) * 1e6


def runner_time_us(requests: int, steps: int) -> float:
    """Median of a greedy decode step of the real runner over a tiny model without its layers."""
    torch.set_num_threads(1)  # what is left is so small that waking a second thread costs more
    room = limits(requests, steps)
    with tempfile.TemporaryDirectory() as folder:
        write_random_checkpoint(Path(folder))
        spec = ModelSpec.load(Path(folder))
        model = load_model(Path(folder), spec, torch.float32, torch.device("cpu"))
    model.language.layers.clear()
    cache = KVCache.allocate(
        num_layers=1,
        num_blocks=room.kv_blocks,
        block_size=room.kv_block_size,
        num_kv_heads=1,
        head_dim=1,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )
    room = msgspec.structs.replace(room, tokens_per_image=spec.tokens_per_image)
    runner, scheduler = LocalRunner(model, cache, room), Scheduler(room)
    for request_id in range(requests):
        request = submit(request_id, steps + 8)
        greedy = SamplingParams(temperature=0.0)
        scheduler.submit(b"api-0", msgspec.structs.replace(request, sampling=greedy), [])
    times_s = []
    for _ in range(steps):
        plan = scheduler.schedule()
        assert plan is not None
        begin = time.perf_counter()
        result = runner.launch(plan).result()
        times_s.append(time.perf_counter() - begin)
        scheduler.retire(result)
    runner.close()
    return statistics.median(times_s) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost of the engine's Python per decode step.")
    parser.add_argument("--requests", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--steps", type=int, default=1000)
    arguments = parser.parse_args()
    print("| running | schedule us | retire us | turn us | inputs and sampling us |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for requests in arguments.requests:
        schedule, retire = scheduler_times_us(requests, arguments.steps)
        turn = turn_time_us(requests, arguments.steps)
        runner = runner_time_us(requests, arguments.steps)
        print(f"| {requests} | {schedule:.0f} | {retire:.0f} | {turn:.0f} | {runner:.0f} |")


if __name__ == "__main__":
    main()
