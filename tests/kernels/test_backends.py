from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from server.errors import StartupError
from server.kernels.backends import choose_backend, choose_ops
from server.kernels.cpu import tiles
from server.kernels.ops import TORCH
from server.model.packing import OneDnnMatrix, plain_bytes, plain_packing

CPU, CUDA = torch.device("cpu"), torch.device("cuda")

Installed = dict[str, SimpleNamespace | Exception]

FLASH3 = SimpleNamespace(Flash3Batch="fa3's", BLOCK_SIZE=128)
FLASH = SimpleNamespace(FlashBatch="flash-attn's", BLOCK_SIZE=256)
TRITON = SimpleNamespace(TritonBatch="ours", BLOCK_SIZE=64)
ALL: Installed = {"flash3": FLASH3, "flash": FLASH, "triton.attention": TRITON}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a GPU with some compute capability on which some modules can be imported."""

    def make(capability: tuple[int, int], **modules: SimpleNamespace | Exception) -> None:
        installed = {f"server.kernels.{name}": module for name, module in modules.items()}

        def load(name: str) -> Any:
            module = installed.get(name, ImportError(f"No module named {name!r}"))
            if isinstance(module, Exception):
                raise module
            return module

        monkeypatch.setattr(importlib, "import_module", load)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)

    return make


def test_a_cpu_takes_our_kernels_and_says_why() -> None:
    backend = choose_backend("auto", CPU, torch.float32, 64)
    assert backend.name == "cpu"
    assert backend.block_size == 16
    assert "CUDA" in backend.reason
    assert choose_ops(CPU, torch.float32)[0] is not TORCH


@pytest.mark.parametrize("able", [True, False])
def test_bfloat16_is_for_cpus_that_multiply_it(able: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "multiplies_bfloat16", lambda: able)
    backend = choose_backend("auto", CPU, torch.bfloat16, 64)
    assert backend.name == ("cpu" if able else "torch")
    assert backend.hidden == (torch.float32 if able else torch.bfloat16)
    assert ("does not multiply bfloat16" in backend.reason) != able


@pytest.mark.parametrize(
    ("dtype", "head_dim", "why"),
    [(torch.float16, 64, "not compute in float16"), (torch.float32, 80, "no heads of width 80")],
)
def test_a_cpu_takes_torch_where_our_kernels_cannot(
    dtype: torch.dtype, head_dim: int, why: str
) -> None:
    backend = choose_backend("auto", CPU, dtype, head_dim)
    assert backend.name == "torch"
    assert why in backend.reason
    with pytest.raises(StartupError, match=why):
        choose_backend("cpu", CPU, dtype, head_dim)


def test_a_cpu_without_numba_or_what_it_needs_takes_torch(machine: Any) -> None:
    machine((9, 0))
    for found in (
        choose_backend("auto", CPU, torch.float32, 64).reason,
        choose_ops(CPU, torch.float32)[1],
    ):
        assert "numba cannot be imported" in found
    machine((9, 0), **{"cpu.team": SimpleNamespace(missing=lambda: "this CPU has no feet")})
    ops, reason = choose_ops(CPU, torch.float32)
    assert ops is TORCH
    assert "this CPU has no feet" in reason
    assert plain_packing(CPU, torch.float32, torch.float32) is OneDnnMatrix
    assert plain_bytes(CPU, torch.float32, torch.float32, "bfloat16") == 4


@pytest.mark.parametrize(
    ("capability", "dtype", "modules", "name"),
    [
        pytest.param((9, 0), torch.bfloat16, ALL, "fa3", id="Hopper with all"),
        pytest.param((8, 9), torch.bfloat16, ALL, "flash_attn", id="Ada with all"),
        pytest.param((9, 0), torch.bfloat16, {"flash": FLASH}, "flash_attn", id="no fa3"),
        pytest.param((9, 0), torch.bfloat16, {"triton.attention": TRITON}, "triton", id="no wheel"),
        pytest.param((9, 0), torch.float32, ALL, "triton", id="float32"),
        pytest.param((9, 0), torch.bfloat16, {}, "torch", id="nothing"),
    ],
)
def test_the_order_on_gpus(
    machine: Any, capability: tuple[int, int], dtype: torch.dtype, modules: Installed, name: str
) -> None:
    machine(capability, **modules)
    backend = choose_backend("auto", CUDA, dtype)
    assert backend.name == name
    assert (backend.decode is None) == (name == "torch")


@pytest.mark.parametrize(
    "failure",
    [ImportError("No module"), OSError("undefined symbol: x\n..."), AttributeError("no fwd")],
)
def test_a_wheel_that_does_not_load_is_a_reason_and_no_crash(
    machine: Any, failure: Exception
) -> None:
    machine((8, 0), **(ALL | {"flash": failure}))
    backend = choose_backend("auto", CUDA, torch.bfloat16)
    assert backend.name == "triton"
    assert str(failure).splitlines()[0] in backend.reason
    assert "Hopper" in backend.reason
    with pytest.raises(StartupError, match="--attention-backend flash_attn: flash-attn cannot"):
        choose_backend("flash_attn", CUDA, torch.bfloat16)


def test_float32_has_no_flash_attention() -> None:
    for name in ("flash_attn", "fa3"):
        with pytest.raises(StartupError, match="does not compute in float32"):
            choose_backend(name, CUDA, torch.float32)


def test_heads_that_fill_no_tile_are_not_for_our_kernels(machine: Any) -> None:
    machine((9, 0), **ALL)
    for width in (8, 96):
        with pytest.raises(StartupError, match=f"heads of width {width}"):
            choose_backend("triton", CUDA, torch.bfloat16, width)
    assert choose_backend("auto", CUDA, torch.float32, 96).name == "torch"


def test_what_was_asked_for_is_not_replaced() -> None:
    for name in ("flash_attn", "fa3", "triton"):
        with pytest.raises(StartupError, match="need"):
            choose_backend(name, CPU, torch.bfloat16)
    assert choose_backend("torch", CUDA, torch.bfloat16).name == "torch"


def test_without_triton_a_gpu_takes_the_reference_operations(machine: Any) -> None:
    machine((9, 0))
    ops, reason = choose_ops(CUDA, torch.bfloat16)
    assert ops is TORCH
    assert "Triton cannot be imported" in reason
