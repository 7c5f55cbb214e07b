"""Attention that is timed must read memory, not what the chip has kept of the call before."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.gpu.paged import attention
from server.kernels.attention import KVCache
from server.kernels.backends import choose_backend
from server.kernels.sdpa import SdpaBatch
from server.model.spec import ModelSpec
from tests import golden

CPU = torch.device("cpu")


def test_calls_take_layers_of_equal_contents_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    attend = SdpaBatch.attend

    def noted(self: SdpaBatch, layer: int, q: Tensor, cache: KVCache) -> Tensor:
        taken.append(layer)
        return attend(self, layer, q, cache)

    monkeypatch.setattr(SdpaBatch, "attend", noted)
    text = ModelSpec.load(golden.CHECKPOINT).text
    backend = choose_backend("torch", CPU, torch.float32)
    step = ("decode", [1] * 2, [40, 17])
    work = attention(backend, text, step, CPU, torch.float32, layers=3)
    first, *others = [work() for _ in range(4)]
    assert taken == [0, 1, 2, 0]
    assert first.isfinite().all()
    assert all(torch.equal(first, other) for other in others)
