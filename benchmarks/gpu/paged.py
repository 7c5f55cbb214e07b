"""Attention of one step on random numbers that are equal for all backends and types."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle

import torch
from torch import Tensor

from server.kernels.attention import KVCache
from server.kernels.backends import Backend
from server.model.spec import TextSpec

Step = tuple[str, Sequence[int], Sequence[int]]
"""Name, new tokens of each row, context of each row."""

CHECKED: list[Step] = [
    ("decode", [1] * 8, [1, 255, 256, 257, 1000, 4096, 77, 512]),
    ("mixed", [64, 1, 300], [64, 900, 1500]),
    ("prefill", [700], [700]),
]


def attention(
    backend: Backend,
    text: TextSpec,
    step: Step,
    device: torch.device,
    dtype: torch.dtype,
    *,
    layers: int = 1,
) -> Callable[[], Tensor]:
    """Repeats the step's attention in one layer; the output is poisoned by nobody before it.

    Args:
        layers: of the cache, all with the same contents; calls take them in turn.
    """
    _, query_lens, context_lens = step
    generator = torch.Generator().manual_seed(3)
    size, tokens, rows = backend.block_size, sum(query_lens), len(query_lens)
    longest = max(context_lens)
    width = text.head_dim
    # Contexts are drawn by position and then laid into pages, whose size differs.
    context = torch.randn(2, rows, longest, text.num_kv_heads, width, generator=generator)
    q = torch.randn(tokens, text.num_heads, width, generator=generator)
    each = -(-longest // size)
    tables = torch.randperm(rows * each, generator=generator).view(rows, each)
    cache = KVCache.allocate(
        num_layers=layers,
        num_blocks=rows * each,
        block_size=size,
        num_kv_heads=text.num_kv_heads,
        head_dim=width,
        dtype=dtype,
        device=device,
    )
    everywhere = torch.arange(longest)
    positions = [
        torch.arange(end - count, end) for count, end in zip(query_lens, context_lens, strict=True)
    ]
    for stored, values in zip(cache.layer(0), context.bfloat16(), strict=True):
        stored.fill_(torch.nan)
        for row, end in enumerate(context_lens):
            places = tables[row][everywhere[:end] // size] * size + everywhere[:end] % size
            stored[places.to(device)] = values[row, :end].to(device, dtype)
    for every in (cache.keys, cache.values):
        every[1:] = every[:1]
    batch = backend.batch.build(
        cache,
        positions=torch.cat(positions).to(device),
        kv_indices=torch.zeros(tokens, dtype=torch.int64, device=device),
        query_lens=query_lens,
        context_lens=context_lens,
        block_tables=tables.to(device),
    )
    on_device = q.bfloat16().to(device, dtype)
    turns = cycle(range(layers))
    return lambda: batch.attend(next(turns), on_device, cache)


def read_bytes(text: TextSpec, step: Step, dtype: torch.dtype) -> float:
    """Keys and values that the step must read once."""
    return 2 * sum(step[2]) * text.num_kv_heads * text.head_dim * dtype.itemsize


def flops(text: TextSpec, step: Step) -> float:
    """Of the pairs of tokens that see each other."""
    pairs = sum(
        count * (end - count) + count * (count + 1) / 2
        for count, end in zip(step[1], step[2], strict=True)
    )
    return 4 * text.num_heads * text.head_dim * pairs
