"""The runner at the full shape with random weights: decode, prefill, mixed steps, pictures.

Steps are launched as the engine launches them, two at a time. What a step takes longer than its
graph alone is the gap that the host leaves.
"""

from __future__ import annotations

import statistics
import time
from array import array
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu.timing import timed_ms
from server.engine.plan import Encode, Install, Row, RunnerLimits, StepPlan
from server.kernels.attention import KVCache
from server.kernels.backends import Backend
from server.kernels.ops import Ops
from server.messages import SamplingParams
from server.model.internvl import InternVLChat
from server.runner.graphs import CudaCapture, Work
from server.runner.runner import LocalRunner

GREEDY = SamplingParams(temperature=0.0)


class Repeats:
    """Stands in for graphs where there are none, to try the script out."""

    def __call__(self, work: Work) -> tuple[Callable[[], None], Tensor]:
        result = work()

        def replay() -> None:
            result.copy_(work())

        return replay, result


class Engine:
    """Plans for a runner, numbered on.

    Args:
        blocks: of the KV cache.
        graphs: whether decode steps and pictures run as graphs.
    """

    def __init__(
        self, model: InternVLChat, backend: Backend, ops: Ops, *, blocks: int, graphs: bool
    ) -> None:
        model.use(ops)
        self.model = model
        self.backend = backend
        self.device = model.language.embed_tokens.device
        self.runner = make_runner(model, backend, blocks)
        begin = time.perf_counter()
        if graphs and backend.decode is not None:
            capture = CudaCapture() if self.device.type == "cuda" else Repeats()
            self.runner.capture_graphs(backend.decode, capture)
        self.capture_s = time.perf_counter() - begin
        self._step = 0

    def close(self) -> None:
        self.runner.close()

    def _plan(self, **fields: Any) -> StepPlan:
        self._step += 1
        return StepPlan(self._step - 1, **fields)

    def fits(self, rows: int, context: int) -> bool:
        limits = self.runner.limits
        each = -(-context // limits.kv_block_size)
        return rows * each <= limits.kv_blocks and context < limits.max_model_len

    def _install_rows(self, rows: int, context: int, spare: int) -> list[Install]:
        """Requests whose contexts count as computed, with room for `spare` tokens more."""
        each = -(-(context + spare) // self.backend.block_size)
        return [
            install(slot, some_tokens(context), context - 1, range(slot * each, (slot + 1) * each))
            for slot in range(rows)
        ]

    def decode_ms(self, rows: int, context: int, steps: int = 20) -> float:
        """A steady decode step with two in flight."""
        installs = self._install_rows(rows, context, steps + 2)
        listed = [Row(slot, 1) for slot in range(rows)]
        pending = [self.runner.launch(self._plan(installs=installs, rows=listed))]
        times = []
        for _ in range(steps):
            pending.append(self.runner.launch(self._plan()))
            pending.pop(0).result()
            times.append(time.perf_counter())
        pending.pop().result()
        return statistics.median(after - before for before, after in pairwise(times[4:])) * 1e3

    def replay_ms(self, rows: int, context: int) -> float | None:
        """The graph of such a step on the device, without what the host does around it, uploads of
        its inputs included."""
        graphs = self.runner._graphs
        if graphs is None:
            return None
        self.decode_ms(rows, context, 6)
        slots, positions = np.arange(rows), np.full(rows, context)
        replay, _ = graphs._graphs[min(size for size in graphs._sizes if size >= rows)]
        with torch.inference_mode():
            graphs.run(slots, positions, None)  # sets the inputs that replays then find
            return timed_ms(replay, self.device)

    def prefill_ms(self, tokens: int, past: int = 0) -> float:
        """The best of three."""
        blocks = range(-(-(past + tokens + 1) // self.backend.block_size))
        times = []
        for _ in range(4):
            plan = self._plan(
                installs=[install(0, some_tokens(past + tokens), past, blocks)],
                rows=[Row(0, tokens)],
            )
            times.append(self._seconds(plan))
        return min(times[1:]) * 1e3

    def mixed_ms(self, rows: int, context: int, tokens: int) -> float:
        """Rows that decode beside a prefill, in one step."""
        first = rows * -(-(context + 8) // self.backend.block_size)
        blocks = range(first, first + -(-(tokens + 1) // self.backend.block_size))
        times = []
        for _ in range(4):
            installs = self._install_rows(rows, context, 8)
            installs.append(install(rows, some_tokens(tokens), 0, blocks))
            listed = [*(Row(slot, 1) for slot in range(rows)), Row(rows, tokens)]
            times.append(self._seconds(self._plan(installs=installs, rows=listed)))
        return min(times[1:]) * 1e3

    def vision_ms(self, pictures: int) -> float:
        """Pictures in a step, less the step without them."""
        size = self.model.spec.vision.image_size
        data = torch.randint(0, 256, (3 * size**2,)).to(torch.uint8).numpy().tobytes()
        encodes = [Encode(slot, memoryview(data)) for slot in range(pictures)]
        with_pictures, without = (
            min(
                self._seconds(
                    self._plan(
                        installs=[install(0, [1], 0, range(1))], rows=[Row(0, 1)], encodes=part
                    )
                )
                for _ in range(4)
            )
            for part in (encodes, [])
        )
        return (with_pictures - without) * 1e3

    def _seconds(self, plan: StepPlan) -> float:
        begin = time.perf_counter()
        self.runner.launch(plan).result()
        return time.perf_counter() - begin


def some_tokens(count: int) -> list[int]:
    return [1 + index % 500 for index in range(count)]


def install(slot: int, tokens: list[int], computed: int, blocks: range) -> Install:
    return Install(
        slot=slot,
        tokens=array("i", tokens).tobytes(),
        prompt_length=len(tokens),
        computed=computed,
        blocks=list(blocks),
        sampling=GREEDY,
    )


def make_runner(model: InternVLChat, backend: Backend, blocks: int) -> LocalRunner:
    spec = model.spec
    longest = spec.text.max_positions
    limits = RunnerLimits(
        slots=128,
        kv_blocks=blocks,
        kv_block_size=backend.block_size,
        image_slots=16,
        image_cost_tokens=spec.image_cost_tokens,
        step_token_budget=longest,
        max_model_len=longest,
        vocab_size=spec.text.vocab_size,
        tokens_per_image=spec.tokens_per_image,
        image_bytes=3 * spec.vision.image_size**2,
    )
    cache = KVCache.allocate(
        num_layers=spec.text.num_layers,
        num_blocks=blocks + 1,
        block_size=backend.block_size,
        num_kv_heads=spec.text.num_kv_heads,
        head_dim=spec.text.head_dim,
        dtype=model.dtype,
        device=model.language.embed_tokens.device,
    )
    # Zeros run faster than data.
    cache.keys.normal_()
    cache.values.normal_()
    return LocalRunner(model, cache, limits, batch=backend.batch)
