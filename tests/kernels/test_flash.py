"""The backends of flash-attn, with stand-ins for their one call."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch.testing import assert_close

from server.kernels.attention import AttentionBatch, DecodeBatch, KVCache
from server.kernels.sdpa import SdpaBatch
from tests.kernels.fake_flash import fake_flash, fake_flash3
from tests.kernels.paged_step import Inputs, Row, Step

HEADS, KV_HEADS, HEAD_DIM = 14, 2, 8


PACKAGES: dict[str, Callable[[], AbstractContextManager[type[DecodeBatch]]]] = {
    "flash_attn": fake_flash,
    "flash_attn_3.flash_attn_interface": lambda: fake_flash3("flash_attn_3.flash_attn_interface"),
    "flash_attn_interface": lambda: fake_flash3("flash_attn_interface"),
}


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize(
    ("query_lens", "context_lens"),
    [
        pytest.param([1, 1, 1], [5, 300, 256], id="decode"),
        pytest.param([7], [7], id="prompt"),
        pytest.param([9, 1, 4], [260, 12, 4], id="mixed"),
    ],
)
def test_it_is_asked_for_what_torch_computes(
    package: str, query_lens: list[int], context_lens: list[int]
) -> None:
    generator = torch.Generator().manual_seed(0)
    blocks = torch.randperm(8, generator=generator)[: 2 * len(query_lens)].view(-1, 2)
    positions = [
        torch.arange(end - count, end) for count, end in zip(query_lens, context_lens, strict=True)
    ]
    places = [
        table[position // 256] * 256 + position % 256
        for table, position in zip(blocks, positions, strict=True)
    ]
    tokens = sum(query_lens)
    q = torch.randn(tokens, HEADS, HEAD_DIM, generator=generator)
    k, v = torch.randn(2, tokens, KV_HEADS, HEAD_DIM, generator=generator)
    with PACKAGES[package]() as flash_batch:
        backends: list[type[AttentionBatch]] = [flash_batch, SdpaBatch]
    results = []
    for backend in backends:
        cache = KVCache.allocate(
            num_layers=2,
            num_blocks=8,
            block_size=256,
            num_kv_heads=KV_HEADS,
            head_dim=HEAD_DIM,
            dtype=torch.float32,
            device=torch.device("cpu"),
        )
        earlier = torch.Generator().manual_seed(1)
        cache.keys.copy_(torch.randn(cache.keys.shape, generator=earlier))
        cache.values.copy_(torch.randn(cache.values.shape, generator=earlier))
        batch = backend.build(
            cache,
            positions=torch.cat(positions),
            kv_indices=torch.cat(places),
            query_lens=query_lens,
            context_lens=context_lens,
            block_tables=blocks,
        )
        results.append(batch.write_and_attend(1, q, k, v, cache))
    assert_close(*results, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_step_for_a_graph_is_the_same_step(package: str) -> None:
    rows = [Row(5), Row(300), Row(1)]
    inputs = Inputs.random(len(rows), 300, kv_heads=1, group=7)
    with PACKAGES[package]() as flash_batch:
        step = Step(inputs, rows, 256, flash_batch)
    plain = step.build()
    captured = flash_batch.decode(
        positions=plain.positions,
        kv_indices=plain.kv_indices,
        block_tables=step.block_tables,
        longest_context=512,
    )
    assert torch.equal(step.attend(captured), step.attend(plain))
