"""Executes step plans on one device: apply, encode pictures, forward, sample.

Steps run one after another on a thread of their own, so that `launch` returns at once and the
engine plans the next step meanwhile, on a CPU as on a GPU. Everything a step needs is on the device
or follows from the plan; tokens come back by a copy that only `result` waits for.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from server.engine.plan import Encode, RunnerLimits, Scatter, StepPlan, StepResult
from server.kernels.attention import KVCache
from server.kernels.sdpa import SdpaBatch
from server.messages import Ready
from server.model.internvl import InternVLChat
from server.runner.inputs import Ints, StepLayout
from server.runner.sampler import sample
from server.runner.slots import Slots


@dataclass(frozen=True, slots=True)
class HostCopy:
    """Values on their way from the device."""

    values: Tensor
    arrived: torch.cuda.Event | None

    @classmethod
    def start(cls, values: Tensor) -> HostCopy:
        if values.device.type == "cpu":
            return cls(values, None)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copy = values.to("cpu", non_blocking=True)
        event.record()
        return cls(copy, event)

    def wait(self) -> list[int]:
        if self.arrived is not None:
            self.arrived.synchronize()
        values: list[int] = self.values.tolist()
        return values


@dataclass(frozen=True, slots=True)
class PendingStep:
    """A step on its way; see `engine.plan.Pending`."""

    step: int
    token_ids: Future[HostCopy]

    def result(self) -> StepResult:
        return StepResult(self.step, self.token_ids.result().wait())


class LocalRunner:
    """A `Runner` for one device.

    Args:
        cache: blocks as `limits` says.
    """

    def __init__(self, model: InternVLChat, cache: KVCache, limits: RunnerLimits) -> None:
        self.limits = limits
        self._model = model
        self._cache = cache
        self._device = cache.keys.device
        self._slots = Slots(limits, self._device)
        self._images = torch.zeros(
            limits.image_slots,
            limits.tokens_per_image,
            model.spec.text.hidden_size,
            dtype=model.dtype,
            device=self._device,
        )
        self._next_step = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="device")

    def launch(self, plan: StepPlan) -> PendingStep:
        assert plan.step == self._next_step, "a plan was lost or repeated"
        self._next_step += 1
        return PendingStep(plan.step, self._thread.submit(self._execute, plan))

    def rehearse(self, plan: StepPlan) -> None:
        """Executes a plan that does not count, before the first that does."""
        assert self._next_step == 0
        self._thread.submit(self._execute, plan).result().wait()

    def describe(self) -> Ready:
        """What API processes are told."""
        return Ready(
            max_model_len=self.limits.max_model_len,
            max_num_seqs=self.limits.slots,
            kv_blocks=self.limits.kv_blocks,
            kv_block_size=self.limits.kv_block_size,
            step_token_budget=self.limits.step_token_budget,
            dtype=str(self._model.dtype).removeprefix("torch."),
            device=str(self._device),
            ranks=1,
        )

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)

    @torch.inference_mode()
    def _execute(self, plan: StepPlan) -> HostCopy:
        rows = self._slots.apply(plan)
        self._encode(plan.encodes)
        layout = StepLayout.of(rows, [self._slots[row.slot] for row in rows])
        hidden = self._forward(layout, plan.scatters)
        for row in rows:
            self._slots[row.slot].computed += row.count
        return HostCopy.start(self._sample(hidden, layout))

    def _encode(self, encodes: Sequence[Encode]) -> None:
        if not encodes:
            return
        size = self._model.spec.vision.image_size
        pixels = torch.stack(
            [torch.frombuffer(bytearray(encode.pixels), dtype=torch.uint8) for encode in encodes]
        )
        pixels = pixels.view(-1, size, size, 3).to(self._device)
        slots = [encode.image_slot for encode in encodes]
        self._images[slots] = self._model.encode_images(pixels)

    def _forward(self, layout: StepLayout, scatters: Sequence[Scatter]) -> Tensor:
        """Computes the step's tokens; returns the hidden state of each."""
        size = self.limits.kv_block_size
        slots, positions = self._upload(layout.token_slots), self._upload(layout.positions)
        blocks = self._slots.block_tables[slots, self._upload(layout.positions // size)]
        batch = SdpaBatch.build(
            self._cache,
            positions=positions,
            kv_indices=blocks * size + self._upload(layout.positions % size),
            query_lens=layout.query_lens,
            context_lens=layout.context_lens,
            block_tables=self._slots.block_tables[self._upload(layout.row_slots)],
        )
        hidden = self._model.embed(self._slots.tokens[slots, positions])
        for scatter in scatters:
            begin = layout.token_of(scatter.slot, scatter.position)
            embeddings = self._images[scatter.image_slot, scatter.first :][: scatter.count]
            hidden[begin : begin + scatter.count] = embeddings
        return self._model.forward(hidden, self._cache, batch)

    def _sample(self, hidden: Tensor, layout: StepLayout) -> Tensor:
        """Draws the next token of each row that reached its end, and remembers it."""
        if not layout.sampling_slots:
            return torch.empty(0, dtype=torch.int64)
        last = hidden.index_select(0, self._upload(layout.sampling_tokens))
        rows = [self._slots.sampling_row(slot) for slot in layout.sampling_slots]
        token_ids = sample(self._model.logits(last), rows)
        self._slots.append(layout.sampling_slots, token_ids)
        return token_ids

    def _upload(self, values: Ints) -> Tensor:
        return torch.from_numpy(values).to(self._device, non_blocking=True)
