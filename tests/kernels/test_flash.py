"""The flash-attn backend, with a stand-in for its one call that does what is documented."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from server.kernels.attention import AttentionBatch, KVCache
from server.kernels.sdpa import SdpaBatch

HEADS, KV_HEADS, HEAD_DIM = 14, 2, 8


def varlen(  # noqa: PLR0917 - the library's own order
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    *,
    causal: bool,
    block_table: Tensor,
) -> Tensor:
    """Row by row, query by query; aligned at the end of each context."""
    assert causal
    assert k.shape[1] % 256 == 0
    for lengths in (cu_seqlens_q, cu_seqlens_k, block_table):
        assert lengths.dtype == torch.int32
    query_lens, context_lens = cu_seqlens_q.diff().tolist(), cu_seqlens_k.diff().tolist()
    assert max(query_lens) == max_seqlen_q
    assert max(context_lens) == max_seqlen_k
    out = torch.full_like(q, torch.nan)
    for row, (queries, context) in enumerate(zip(query_lens, context_lens, strict=True)):
        keys = k[block_table[row].long()].flatten(0, 1)[:context]
        values = v[block_table[row].long()].flatten(0, 1)[:context]
        for index in range(queries):
            token = int(cu_seqlens_q[row]) + index
            seen = context - queries + index + 1
            for head in range(q.shape[1]):
                kv = head // (q.shape[1] // k.shape[2])
                scores = keys[:seen, kv] @ q[token, head] / q.shape[2] ** 0.5
                out[token, head] = scores.softmax(0) @ values[:seen, kv]
    return out


@pytest.fixture
def flash_batch(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[AttentionBatch]]:
    package: Any = ModuleType("flash_attn")
    package.flash_attn_varlen_func = varlen
    monkeypatch.setitem(sys.modules, "flash_attn", package)
    monkeypatch.delitem(sys.modules, "server.kernels.flash", raising=False)
    yield importlib.import_module("server.kernels.flash").FlashBatch
    sys.modules.pop("server.kernels.flash", None)


@pytest.mark.parametrize(
    ("query_lens", "context_lens"),
    [
        pytest.param([1, 1, 1], [5, 300, 256], id="decode"),
        pytest.param([7], [7], id="prompt"),
        pytest.param([9, 1, 4], [260, 12, 4], id="mixed"),
    ],
)
def test_it_is_asked_for_what_torch_computes(
    flash_batch: type[AttentionBatch], query_lens: list[int], context_lens: list[int]
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
    results = []
    for backend in (flash_batch, SdpaBatch):
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
