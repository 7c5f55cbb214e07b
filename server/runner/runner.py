"""Executes step plans on one device: apply, encode pictures, forward, sample. In a layer pipeline
the first stage encodes and embeds, the last one samples, and `stage.py` has what lies between.

Steps run one after another on a thread of their own, so that `launch` returns at once and the
engine plans the next step meanwhile, on a CPU as on a GPU. Everything a step needs is on the device
or follows from the plan; tokens come back by a copy that only `result` waits for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from server.distributed.groups import Groups
from server.engine.plan import Encode, Row, RunnerLimits, Scatter, StepPlan
from server.kernels.attention import AttentionBatch, DecodeBatch, KVCache
from server.kernels.sdpa import SdpaBatch
from server.messages import Ready
from server.model.internvl import InternVLChat
from server.model.shards import split_text
from server.runner.device_faults import MemoryGuard
from server.runner.graphs import Capture, DecodeGraphs, VisionGraphs
from server.runner.inputs import Ints, StepLayout
from server.runner.logprobs import Logprobs
from server.runner.pending import Masks, PendingStep, PromptPart, Sampled
from server.runner.profile import StepProfile
from server.runner.slots import Slot, Slots
from server.runner.stage import make_stage
from server.runner.stopwatch import Stopwatch
from server.runner.vocabulary import Vocabulary

LOGITS_AT_ONCE = 256
"""Tokens of a prompt whose logits exist at a time: those of a chunk may take gigabytes, for which
nobody has planned."""


class LocalRunner:
    """A `Runner` for one device: of the whole model, or of a rank's part of it.

    Args:
        cache: blocks as `limits` says, for the KV heads of this rank.
        groups: the ranks that hold the rest; all of them get the same plans.
        batch: the implementation of attention.
    """

    def __init__(
        self,
        model: InternVLChat,
        cache: KVCache,
        limits: RunnerLimits,
        groups: Groups | None = None,
        batch: type[AttentionBatch] = SdpaBatch,
    ) -> None:
        self.limits = limits
        self._batch = batch
        self._model = model
        self._cache = cache
        groups = groups or Groups()
        self._towers = groups.towers
        sizes = [len(part.vocabulary) for part in split_text(model.spec.text, groups.model.size)]
        self._vocabulary = Vocabulary(sizes, groups.model)
        self._device = cache.keys.device
        self._slots = Slots(limits, self._device)
        self._predicts = model.shard.text.predicts
        self._stage = make_stage(groups, self._slots, limits, model)
        self._images = torch.empty(  # on a CPU, memory once pictures come
            limits.image_slots if model.shard.text.embeds else 0,
            limits.tokens_per_image,
            model.spec.text.hidden_size,
            dtype=model.dtype,
            device=self._device,
        )
        self._next_step = 0
        self._guard = MemoryGuard(self._device)
        self._thread = ThreadPoolExecutor(
            1, thread_name_prefix="device", initializer=_take_device, initargs=(self._device,)
        )
        self._awaiting_masks: deque[Future[Masks]] = deque()
        self._graphs: DecodeGraphs | None = None
        self._encode_images = model.encode_images
        self._layers = model.forward
        self.weights_load_s = 0.0
        self.profile: StepProfile | None = None

    def capture_graphs(self, batch: type[DecodeBatch], capture: Capture) -> None:
        """Lets steady decode steps and the vision tower run as graphs from here on. The cache needs
        one block more than `limits` says."""
        self._thread.submit(self._capture_graphs, batch, capture).result()

    @torch.inference_mode()
    def _capture_graphs(self, batch: type[DecodeBatch], capture: Capture) -> None:
        if self._model.shard.text.embeds:
            self._encode_images = VisionGraphs(self._model, self._device, capture).encode
        self._graphs = DecodeGraphs(
            self._model,
            self._cache,
            self._slots,
            batch=batch,
            max_model_len=self.limits.max_model_len,
            capture=capture,
        )

    def repeat_steps(self, repeat: Callable[..., Any]) -> None:
        """Lets steps of a few rows be recorded and repeated; see `Backend.repeat`."""
        self._layers = repeat(self._model.forward, self.limits.max_model_len)

    def launch(self, plan: StepPlan) -> PendingStep:
        assert plan.step == self._next_step, "a plan was lost or repeated"
        self._next_step += 1
        masks: Future[Masks] = Future()
        if plan.masked:
            self._awaiting_masks.append(masks)
            masks.add_done_callback(lambda _: self._awaiting_masks.popleft())
        step = partial(self._guard.run, partial(self._execute, plan, masks))
        if self.profile is not None:
            step = partial(self.profile.run, step)
        return PendingStep(plan.step, self._thread.submit(step), masks)

    def rehearse(self, plan: StepPlan) -> None:
        """Executes a plan that does not count, before the first that does."""
        assert self._next_step == 0
        self._thread.submit(self._execute, plan, Future()).result().wait(plan.step)

    def describe(self, ranks: int = 1) -> Ready:
        """What API processes are told."""
        return Ready(
            max_model_len=self.limits.max_model_len,
            max_num_seqs=self.limits.slots,
            kv_blocks=self.limits.kv_blocks,
            kv_block_size=self.limits.kv_block_size,
            step_token_budget=self.limits.step_token_budget,
            dtype=str(self._cache.keys.dtype).removeprefix("torch."),
            device=str(self._device),
            ranks=ranks,
            weights_load_s=self.weights_load_s,
        )

    def recover(self) -> bool:
        self._forget_masks()
        self._thread.submit(self._guard.clear).result()
        return True

    def close(self) -> None:
        self._forget_masks()
        self._thread.shutdown(cancel_futures=True)

    def _forget_masks(self) -> None:
        for masks in list(self._awaiting_masks):
            masks.cancel()

    @torch.inference_mode()
    def _execute(self, plan: StepPlan, masks: Future[Masks]) -> Sampled:
        self._stage.collect_tokens(plan)
        rows = self._slots.apply(plan)
        embeds = self._model.shard.text.embeds
        encoding = Stopwatch(self._device) if plan.encodes and embeds else None
        with encoding.running() if encoding else nullcontext(), self._guard.encoding():
            if embeds:
                self._encode(plan.encodes)
        slots = [self._slots[row.slot] for row in rows]
        layout = StepLayout.of(rows, slots)
        prompts: list[PromptPart] = []
        arrived = self._stage.receive(len(layout.positions))
        if self._graphs is not None and self._graphs.hold(layout) and not plan.scatters:
            result = self._graphs.run(layout.row_slots, layout.positions, arrived)
        else:
            last = self._upload(layout.sampling_tokens) if self._predicts else None
            whole = any(slot.reports_prompt for slot in slots)
            wanted = None if whole else last
            result = self._forward(layout, plan.scatters, arrived, wanted)
            if last is not None:
                prompts = self._all_prompt_logprobs(rows, slots, layout, result)
                result = self._model.logits(result if wanted is not None else result[last])
        self._slots.advance(rows)
        if not self._predicts:
            self._stage.pass_on(plan.step, result, layout)
            return Sampled.nowhere()
        sampled = self._sample(result, layout, plan.masked, masks, prompts)
        self._stage.send_tokens(sampled.token_ids)
        return replace(sampled, encoding=encoding).to_host()

    def _encode(self, encodes: Sequence[Encode]) -> None:
        """Puts pictures' embeddings into their slots. Towers take turns at the pictures, and then
        everybody gets them all."""
        if not encodes:
            return
        towers = self._towers.size
        own = encodes[self._towers.rank :: towers]
        size = self._model.spec.vision.image_size
        shape = (-(-len(encodes) // towers), *self._images.shape[1:])
        embeddings = self._images.new_zeros(shape)
        if own:
            pixels = [torch.frombuffer(bytearray(e.pixels), dtype=torch.uint8) for e in own]
            pictures = torch.stack(pixels).view(-1, size, size, 3).to(self._device)
            embeddings[: len(own)] = self._encode_images(pictures)
        # The pictures of all towers, turn by turn: those of the plan, in its order.
        in_turn = torch.stack(self._towers.gather(embeddings), dim=1).flatten(0, 1)
        slots = [encode.image_slot for encode in encodes]
        self._images[slots] = in_turn[: len(encodes)]

    def _forward(
        self,
        layout: StepLayout,
        scatters: Sequence[Scatter],
        arrived: Tensor | None,
        wanted: Tensor | None,
    ) -> Tensor:
        """Computes the step's tokens, from what the stage before made of them; returns the hidden
        state of each, or of those that are `wanted`."""
        size = self.limits.kv_block_size
        slots, positions = self._upload(layout.token_slots), self._upload(layout.positions)
        blocks = self._slots.block_tables[slots, self._upload(layout.positions // size)]
        batch = self._batch.build(
            self._cache,
            positions=positions,
            kv_indices=blocks * size + self._upload(layout.positions % size),
            query_lens=layout.query_lens,
            context_lens=layout.context_lens,
            block_tables=self._slots.block_tables[self._upload(layout.row_slots)],
        )
        if arrived is not None:
            return self._layers(arrived, self._cache, batch, wanted)
        hidden = self._model.embed(self._slots.tokens[slots, positions])
        for scatter in scatters:
            begin = layout.token_of(scatter.slot, scatter.position)
            embeddings = self._images[scatter.image_slot, scatter.first :][: scatter.count]
            hidden[begin : begin + scatter.count] = embeddings
        return self._layers(hidden, self._cache, batch, wanted)

    def _sample(
        self,
        logits: Tensor,
        layout: StepLayout,
        masked: Sequence[int],
        masks: Future[Masks],
        prompts: list[PromptPart],
    ) -> Sampled:
        """Draws a token wherever a slot has reached its end, or would with its guesses, and
        remembers it."""
        slots, positions = layout.sampling_slots, layout.sampling_positions
        if not slots:
            return Sampled(torch.empty(0, dtype=torch.int64), None, [], prompts)
        rows = list(map(self._slots.sampling_row, slots, positions))
        counts = [row.params.logprobs for row in rows]
        asked = [index for index, count in enumerate(counts) if count is not None]
        # A copy: sampling bends the logits.
        untouched = self._vocabulary.whole(logits[asked]) if asked else logits[:0]
        row_masks: list[bytes | None] = []
        if masked:
            by_slot = dict(zip(masked, masks.result(), strict=True))
            row_masks = [by_slot.get(slot) for slot in slots]
        token_ids = self._vocabulary.sample(logits, rows, row_masks)
        self._slots.write(slots, positions, token_ids)
        if not asked:
            return Sampled(token_ids, None, [], prompts)
        top = max(count for count in counts if count is not None)
        chosen = token_ids[asked].clamp(min=0)
        return Sampled(token_ids, Logprobs.of(untouched, chosen, top), counts, prompts)

    def _all_prompt_logprobs(
        self, rows: Sequence[Row], slots: Sequence[Slot], layout: StepLayout, hidden: Tensor
    ) -> list[PromptPart]:
        """Those of all rows that want them, from the `hidden` state of each token."""
        parts: list[PromptPart] = []
        for row, slot in zip(rows, slots, strict=True):
            if slot.reports_prompt:
                first = layout.token_of(row.slot, slot.computed)
                parts += self._prompt_logprobs(row, slot, hidden[first : first + row.count])
        return parts

    def _prompt_logprobs(self, row: Row, slot: Slot, hidden: Tensor) -> list[PromptPart]:
        """What the model thought of the prompt's tokens that follow the positions of a chunk with
        the states `hidden` [tokens, hidden]."""
        assert slot.prompt_logprobs is not None
        first = slot.computed + 1
        end = min(first + row.count, slot.prompt_length)
        states = torch.split(hidden[: end - first], LOGITS_AT_ONCE)
        targets = torch.split(self._slots.tokens[row.slot, first:end], LOGITS_AT_ONCE)
        parts: list[PromptPart] = []
        for some, following in zip(states, targets, strict=True):
            logits = self._vocabulary.whole(self._model.logits(some))
            logprobs = Logprobs.of(logits, following, slot.prompt_logprobs)
            parts.append(PromptPart(row.slot, first, logprobs, slot.prompt_logprobs))
            first += len(following)
        return parts

    def _upload(self, values: Ints) -> Tensor:
        return torch.from_numpy(values).to(self._device, non_blocking=True)


def _take_device(device: torch.device) -> None:
    """What a thread launches without naming a device goes to the first one otherwise."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
