"""Decode steps and pictures as graphs: one launch instead of a thousand.

A graph is captured for some numbers of rows; a step takes the next larger one and fills it up with
rows of a scratch slot, whose blocks nobody reads. The only inputs are slots and positions: tokens,
block tables and lengths are looked up on the device, in the graph. Pictures are all of one size, so
the vision tower has graphs for a few numbers of them. The largest graph is captured first, so that
the smaller ones fit into its memory.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from server.kernels.attention import DecodeBatch, KVCache
from server.model.internvl import InternVLChat
from server.runner.inputs import Ints, StepLayout
from server.runner.slots import Slots

Work = Callable[[], Tensor]


class Capture(Protocol):
    """Turns work on fixed tensors into something that repeats it."""

    def __call__(self, work: Work) -> tuple[Callable[[], None], Tensor]:
        """A function that repeats the work, and the tensor in which its result then is."""


class CudaCapture:
    """CUDA graphs that share their memory."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Work) -> tuple[Callable[[], None], Tensor]:
        work()  # kernels are compiled and handles made outside the graph
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            result = work()
        return graph.replay, result


def graph_sizes(slots: int) -> list[int]:
    """Numbers of rows to capture: 1, 2, 4, then multiples of 8, of 16 beyond 64."""
    sizes = [1, 2, 4, *range(8, 65, 8), *range(80, slots + 16, 16)]
    return sorted({min(size, slots) for size in sizes})


class DecodeGraphs:
    """Graphs of steps in which each row is one token that samples, for one stage of the model.

    Args:
        slots: tables with one slot more than requests can have, the scratch slot.
        batch: attention that needs no lengths on the host.
        max_model_len: longest context that a graph must serve.
    """

    def __init__(
        self,
        model: InternVLChat,
        cache: KVCache,
        slots: Slots,
        *,
        batch: type[DecodeBatch],
        max_model_len: int,
        capture: Capture,
    ) -> None:
        self._model = model
        self._cache = cache
        self._tables = slots
        self._batch = batch
        self._max_model_len = max_model_len
        self._scratch = len(slots.tokens) - 1
        device = slots.tokens.device
        self._sizes = graph_sizes(self._scratch)
        self._slots = torch.full((self._scratch,), self._scratch, device=device)
        self._positions = torch.zeros_like(self._slots)
        shard, width = model.shard.text, model.spec.text.hidden_size
        self._embeds, self._predicts = shard.embeds, shard.predicts
        self._arrived = torch.zeros(self._scratch, width, dtype=model.dtype, device=device)
        self._graphs = {size: capture(self._work(size)) for size in reversed(self._sizes)}

    def _work(self, size: int) -> Work:
        slots, positions = self._slots[:size], self._positions[:size]

        def work() -> Tensor:
            block_tables = self._tables.block_tables[slots]
            block_size = self._cache.block_size
            blocks = block_tables.gather(1, (positions // block_size)[:, None])[:, 0]
            batch = self._batch.decode(
                positions=positions,
                kv_indices=blocks * block_size + positions % block_size,
                block_tables=block_tables,
                longest_context=self._max_model_len,
            )
            hidden = self._arrived[:size]
            if self._embeds:
                hidden = self._model.embed(self._tables.tokens[slots, positions])
            hidden = self._model.forward(hidden, self._cache, batch)
            return self._model.logits(hidden) if self._predicts else hidden

        return work

    def hold(self, layout: StepLayout) -> bool:
        """Whether there is a graph for such a step."""
        return layout.decodes and len(layout.positions) <= self._sizes[-1]

    def run(self, slots: Ints, positions: Ints, arrived: Tensor | None) -> Tensor:
        """What the stage makes of a step's rows, valid until the next call: logits in the last
        one, hidden states before it. `arrived` is what the stage before made of them."""
        rows = len(slots)
        size = self._sizes[bisect_left(self._sizes, rows)]
        self._slots[:rows] = torch.from_numpy(slots)
        self._slots[rows:size] = self._scratch
        self._positions[:rows] = torch.from_numpy(positions)
        self._positions[rows:size] = 0
        if arrived is not None:
            self._arrived[:rows] = arrived
        replay, result = self._graphs[size]
        replay()
        return result[:rows]


PICTURES = (1, 2, 4, 8)
"""Numbers of pictures to capture; beyond the last there is little left to gain from a batch."""


class VisionGraphs:
    """Graphs of the vision tower and the projector."""

    def __init__(self, model: InternVLChat, device: torch.device, capture: Capture) -> None:
        size = model.spec.vision.image_size
        self._pixels = torch.zeros(PICTURES[-1], size, size, 3, dtype=torch.uint8, device=device)

        def work(count: int) -> Work:
            return lambda: model.encode_images(self._pixels[:count])

        self._graphs = {count: capture(work(count)) for count in reversed(PICTURES)}

    def encode(self, pixels: Tensor) -> Tensor:
        """As `InternVLChat.encode_images`, batch by batch."""
        return torch.cat([self._batch(part) for part in torch.split(pixels, PICTURES[-1])])

    def _batch(self, pixels: Tensor) -> Tensor:
        count = PICTURES[bisect_left(PICTURES, len(pixels))]
        self._pixels[: len(pixels)] = pixels
        replay, result = self._graphs[count]
        replay()
        # The next batch overwrites the result.
        return result[: len(pixels)].clone()
