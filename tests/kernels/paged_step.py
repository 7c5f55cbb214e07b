"""A step over a paged cache, for any backend, and what its attention must be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from server.kernels.attention import AttentionBatch, KVCache, write
from server.kernels.sdpa import SdpaBatch

LAYERS = 2

Write = Callable[[KVCache, int, Tensor, Tensor, Tensor], None]
"""As `attention.write`: blocks are laid out as their backend likes."""
HEAD_DIM = 8


@dataclass(frozen=True)
class Row:
    """The last `count` of `context` positions of a sequence; the others are in the cache."""

    context: int
    count: int = 1


@dataclass(frozen=True)
class Inputs:
    """What sequences of random keys and values are made of: [sequence, position, heads, width]."""

    q: Tensor
    k: Tensor
    v: Tensor

    @classmethod
    def random(
        cls, sequences: int, positions: int, *, kv_heads: int, group: int, head_dim: int = HEAD_DIM
    ) -> Inputs:
        generator = torch.Generator().manual_seed(0)

        def draw(heads: int) -> Tensor:
            return torch.randn(sequences, positions, heads, head_dim, generator=generator)

        return cls(draw(kv_heads * group), draw(kv_heads), draw(kv_heads))


class Step:
    """A cache with scattered blocks that holds every row's earlier positions, and nothing else."""

    def __init__(
        self,
        inputs: Inputs,
        rows: Sequence[Row],
        block_size: int = 4,
        backend: type[AttentionBatch] = SdpaBatch,
        write: Write = write,
    ) -> None:
        self.inputs, self.rows, self.block_size = inputs, rows, block_size
        self.backend = backend
        blocks = -(-max(row.context for row in rows) // block_size)
        order = torch.randperm(blocks * len(rows) + 1, generator=torch.Generator().manual_seed(1))
        self.block_tables = order[1:].view(len(rows), blocks)
        self.cache = KVCache.allocate(
            num_layers=LAYERS,
            num_blocks=len(order),
            block_size=block_size,
            num_kv_heads=inputs.k.shape[2],
            head_dim=inputs.k.shape[3],
            dtype=inputs.k.dtype,
            device=torch.device("cpu"),
        )
        # Whatever was never written must never be seen.
        self.cache.keys.fill_(torch.nan)
        self.cache.values.fill_(torch.nan)
        for index, row in enumerate(rows):
            before = torch.arange(row.context - row.count)
            k, v = inputs.k[index, before], inputs.v[index, before]
            write(self.cache, 1, self.places(index, before), k, v)

    def places(self, index: int, positions: Tensor) -> Tensor:
        block = self.block_tables[index][positions // self.block_size]
        return block * self.block_size + positions % self.block_size

    def build(self, block_tables: Tensor | None = None) -> AttentionBatch:
        positions = [torch.arange(row.context - row.count, row.context) for row in self.rows]
        places = [self.places(index, position) for index, position in enumerate(positions)]
        return self.backend.build(
            self.cache,
            positions=torch.cat(positions),
            kv_indices=torch.cat(places),
            query_lens=[row.count for row in self.rows],
            context_lens=[row.context for row in self.rows],
            block_tables=self.block_tables if block_tables is None else block_tables,
        )

    def attend(self, batch: AttentionBatch) -> Tensor:
        q, k, v = (self.new_tokens(x) for x in (self.inputs.q, self.inputs.k, self.inputs.v))
        return batch.write_and_attend(1, q, k, v, self.cache)

    def new_tokens(self, x: Tensor) -> Tensor:
        return torch.cat(
            [x[i, row.context - row.count : row.context] for i, row in enumerate(self.rows)]
        )


def naive(inputs: Inputs, rows: Sequence[Row]) -> Tensor:
    """One softmax per token and head."""
    group = inputs.q.shape[2] // inputs.k.shape[2]
    tokens = []
    for index, row in enumerate(rows):
        for position in range(row.context - row.count, row.context):
            heads = []
            for head, query in enumerate(inputs.q[index, position].double()):
                keys = inputs.k[index, : position + 1, head // group].double()
                values = inputs.v[index, : position + 1, head // group].double()
                weights = torch.softmax(keys @ query / inputs.q.shape[3] ** 0.5, dim=0)
                heads.append(weights @ values)
            tokens.append(torch.stack(heads))
    return torch.stack(tokens).to(inputs.q.dtype)
