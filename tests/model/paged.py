"""Runs sequences through the language model in steps, as the runner does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from server.kernels.attention import KVCache
from server.kernels.sdpa import SdpaBatch
from server.model.internvl import InternVLChat


class PagedSequences:
    """Sequences whose blocks lie scattered over one cache, advanced by any mixture of rows."""

    def __init__(
        self, model: InternVLChat, sequences: Sequence[Tensor], *, block_size: int = 16
    ) -> None:
        self.model = model
        self.sequences = sequences
        self.computed = [0] * len(sequences)
        blocks = -(-max(map(len, sequences)) // block_size)
        order = torch.randperm(blocks * len(sequences), generator=torch.Generator().manual_seed(0))
        self.block_tables = order.view(len(sequences), blocks)
        text = model.spec.text
        self.cache = KVCache.allocate(
            num_layers=text.num_layers,
            num_blocks=len(order),
            block_size=block_size,
            num_kv_heads=len(model.language.shard.kv_heads),
            head_dim=text.head_dim,
            dtype=model.dtype,
            device=torch.device("cpu"),
        )

    def run(self, schedule: Iterable[Sequence[int]]) -> list[Tensor]:
        """Logits [T, vocab] of each sequence; see `states`."""
        return [self.model.logits(hidden) for hidden in self.states(schedule)]

    def states(self, schedule: Iterable[Sequence[int]]) -> list[Tensor]:
        """What the layers make of each sequence, [T, hidden]. A step advances sequence i by the
        i-th number of the schedule, or by what is left of it; the schedule must reach all ends."""
        hidden: list[list[Tensor]] = [[] for _ in self.sequences]
        lengths = [len(sequence) for sequence in self.sequences]
        for wanted in schedule:
            if self.computed == lengths:
                break
            for index, part in self._step(wanted):
                hidden[index].append(part)
        assert self.computed == lengths
        return [torch.cat(parts) for parts in hidden]

    def _step(self, wanted: Sequence[int]) -> Iterable[tuple[int, Tensor]]:
        chunks = [
            sequence[done : done + count]
            for sequence, done, count in zip(self.sequences, self.computed, wanted, strict=True)
        ]
        rows = [index for index, chunk in enumerate(chunks) if len(chunk)]
        if rows:
            batch = self.batch(rows, [len(chunks[row]) for row in rows])
            tokens = torch.cat([chunks[row] for row in rows])
            hidden = self.model.forward(tokens, self.cache, batch)
            for row in rows:
                self.computed[row] += len(chunks[row])
                part, hidden = hidden[: len(chunks[row])], hidden[len(chunks[row]) :]
                yield row, part

    def batch(self, rows: Sequence[int], counts: Sequence[int]) -> SdpaBatch:
        """The next `counts` tokens of the sequences `rows`."""
        ends = [self.computed[row] + count for row, count in zip(rows, counts, strict=True)]
        positions = [
            torch.arange(self.computed[row], end) for row, end in zip(rows, ends, strict=True)
        ]
        places = [
            self._places(row, position) for row, position in zip(rows, positions, strict=True)
        ]
        return SdpaBatch.build(
            self.cache,
            positions=torch.cat(positions),
            kv_indices=torch.cat(places),
            query_lens=counts,
            context_lens=ends,
            block_tables=self.block_tables[list(rows)],
        )

    def _places(self, row: int, positions: Tensor) -> Tensor:
        size = self.cache.block_size
        return self.block_tables[row][positions // size] * size + positions % size
