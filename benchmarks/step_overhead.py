"""What the engine's Python adds to a steady decode step.

Runs the scheduler and the whole loop with a runner that computes nothing, at several numbers of
running requests, and prints microseconds per step: `schedule` (the next plan), `retire` (tokens
into requests and deltas) and `turn` (both, with the wire in between). On a real device all of it
but `retire` of the step before overlaps with the computation.

    python -m benchmarks.step_overhead [--requests 1 8 32 128] [--steps 2000]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from array import array
from dataclasses import dataclass
from pathlib import Path

from server.engine.loop import Engine
from server.engine.plan import RunnerLimits, StepPlan, StepResult
from server.engine.scheduler import Scheduler
from server.ipc import EngineEndpoint
from server.messages import Ready, SamplingParams, Submit

PROMPT_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Done:
    value: StepResult

    def result(self) -> StepResult:
        return self.value


class NullRunner:
    """Samples token 1 for every row, for free."""

    def __init__(self, limits: RunnerLimits) -> None:
        self.limits = limits
        self._samples = 0

    def launch(self, plan: StepPlan) -> Done:
        if plan.rows is not None:  # prompts fit one step here, so every row samples
            self._samples = len(plan.rows)
        return Done(StepResult(plan.step, [1] * self._samples))

    def close(self) -> None:
        pass


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
    runner, scheduler = NullRunner(room), Scheduler(room)
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
        engine = Engine(NullRunner(room), endpoint, scheduler, ready)
        times_s = []
        for _ in range(steps):
            begin = time.perf_counter()
            engine.step(wait_s=0)
            times_s.append(time.perf_counter() - begin)
        endpoint.close()
    return statistics.median(times_s) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost of the engine's Python per decode step.")
    parser.add_argument("--requests", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--steps", type=int, default=2000)
    arguments = parser.parse_args()
    print("| running | schedule us | retire us | whole turn us |")
    print("| ---: | ---: | ---: | ---: |")
    for requests in arguments.requests:
        schedule, retire = scheduler_times_us(requests, arguments.steps)
        turn = turn_time_us(requests, arguments.steps)
        print(f"| {requests} | {schedule:.0f} | {retire:.0f} | {turn:.0f} |")


if __name__ == "__main__":
    main()
