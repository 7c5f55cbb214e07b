from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch

from server.errors import StartupError
from server.kernels.backends import choose_backend

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_a_cpu_takes_torch_and_says_why() -> None:
    backend = choose_backend("auto", CPU, torch.float32)
    assert backend.name == "torch"
    assert backend.block_size == 16
    assert "CUDA" in backend.reason


@pytest.mark.parametrize("failure", [ImportError("No module"), OSError("undefined symbol: x\n...")])
def test_a_wheel_that_does_not_load_is_a_reason_and_no_crash(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def fail(_: str) -> Any:
        raise failure

    monkeypatch.setattr(importlib, "import_module", fail)
    backend = choose_backend("auto", CUDA, torch.bfloat16)
    assert backend.name == "torch"
    assert str(failure).splitlines()[0] in backend.reason
    with pytest.raises(StartupError, match="--attention-backend flash_attn: flash-attn cannot"):
        choose_backend("flash_attn", CUDA, torch.bfloat16)


def test_float32_has_no_flash_attention() -> None:
    with pytest.raises(StartupError, match="does not compute in float32"):
        choose_backend("flash_attn", CUDA, torch.float32)


def test_what_was_asked_for_is_not_replaced() -> None:
    with pytest.raises(StartupError, match="needs a CUDA device"):
        choose_backend("flash_attn", CPU, torch.bfloat16)
    assert choose_backend("torch", CUDA, torch.bfloat16).name == "torch"
