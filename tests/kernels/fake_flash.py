"""Stand-ins for the one call of flash-attn, and of flash-attn 3, that do what is documented."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from server.kernels.attention import DecodeBatch


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
    assert causal
    assert k.shape[1] % 256 == 0
    for lengths in (cu_seqlens_q, cu_seqlens_k, block_table):
        assert lengths.dtype == torch.int32
    context_lens = cu_seqlens_k.diff().tolist()
    assert max(context_lens) <= max_seqlen_k
    assert int(cu_seqlens_q.diff().max()) == max_seqlen_q
    return _attend(q, k, v, cu_seqlens_q, context_lens=context_lens, block_table=block_table)


def with_kvcache(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    *,
    cache_seqlens: Tensor,
    page_table: Tensor,
    cu_seqlens_q: Tensor,
    max_seqlen_q: int,
    causal: bool,
) -> Tensor:
    assert causal
    for lengths in (cache_seqlens, cu_seqlens_q, page_table):
        assert lengths.dtype == torch.int32
    assert int(cu_seqlens_q.diff().max()) == max_seqlen_q
    return _attend(
        q,
        k_cache,
        v_cache,
        cu_seqlens_q,
        context_lens=cache_seqlens.tolist(),
        block_table=page_table,
    )


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    *,
    context_lens: list[int],
    block_table: Tensor,
) -> Tensor:
    """Row by row, query by query; aligned at the end of each context."""
    query_lens = cu_seqlens_q.diff().tolist()
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


@contextmanager
def fake_flash() -> Iterator[type[DecodeBatch]]:
    """The backend over the stand-in."""
    package: Any = ModuleType("flash_attn")
    package.flash_attn_varlen_func = varlen
    with patch.dict(sys.modules, {"flash_attn": package}):
        sys.modules.pop("server.kernels.flash", None)
        yield importlib.import_module("server.kernels.flash").FlashBatch


@contextmanager
def fake_flash3(package_name: str) -> Iterator[type[DecodeBatch]]:
    """The same for flash-attn 3 under one of its names."""
    package: Any = ModuleType(package_name)
    package.flash_attn_with_kvcache = with_kvcache
    with patch.dict(sys.modules, {package_name: package}):
        sys.modules.pop("server.kernels.flash3", None)
        yield importlib.import_module("server.kernels.flash3").Flash3Batch
