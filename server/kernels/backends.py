"""Which implementations run here, decided once at start and said why: of attention, and of what
stands between the matrix products."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import torch

from server.errors import StartupError
from server.kernels import sdpa
from server.kernels.attention import AttentionBatch, DecodeBatch
from server.kernels.ops import TORCH, Ops

FLASH_DTYPES = (torch.bfloat16, torch.float16)
HOPPER = (9, 0)


@dataclass(frozen=True, slots=True)
class Backend:
    """An implementation of paged attention."""

    name: str
    block_size: int
    """Tokens of a block in the KV cache."""
    batch: type[AttentionBatch]
    reason: str
    """Why it was chosen, for people to read."""
    hidden: torch.dtype
    """Type of hidden states and norms. The kernels for CPUs keep them in float32, and round to
    bfloat16 only what matrices multiply and what the cache holds."""
    decode: type[DecodeBatch] | None = None
    """The same where its decode steps can be captured in graphs."""
    repeat: Callable[..., Any] | None = None
    """Makes of a model's `forward`, and the longest context, one that records steps of a few rows
    and repeats them."""


class Unfit(Exception):
    """Why something cannot be used here."""


def choose_backend(
    wanted: str, device: torch.device, dtype: torch.dtype, head_dim: int = 128
) -> Backend:
    """The backend `wanted`, or for `auto` the first that works: flash-attn 3 on Hopper,
    flash-attn, our own kernels for GPUs and for CPUs, torch.

    Raises:
        StartupError: the wanted one does not work here; the message says why.
    """
    probes: dict[str, Callable[[], Backend]] = {
        "fa3": lambda: _flash3(device, dtype),
        "flash_attn": lambda: _flash(device, dtype),
        "triton": lambda: _triton(device, dtype, head_dim),
        "cpu": lambda: _cpu(device, dtype, head_dim),
        "torch": lambda: Backend("torch", sdpa.BLOCK_SIZE, sdpa.SdpaBatch, "plain torch", dtype),
    }
    if wanted != "auto":
        try:
            return probes[wanted]()
        except Unfit as fault:
            raise StartupError(f"--attention-backend {wanted}: {fault}") from fault
    faults: list[str] = []
    for probe in probes.values():
        try:
            backend = probe()
        except Unfit as fault:
            faults.append(str(fault))
        else:
            break
    reason = "; ".join([backend.reason, *faults])
    return replace(backend, reason=reason)


def choose_ops(
    device: torch.device,
    hidden: torch.dtype,
    dtype: torch.dtype | None = None,
    rows: torch.dtype | None = None,
) -> tuple[Ops, str]:
    """What computes norms, rotation and activations, and why.

    Args:
        dtype: of products, where that is not the type of hidden states.
        rows: in which matrices take what they multiply, where that is not `dtype`.
    """
    try:
        if device.type == "cuda":
            ops: Ops = _load("server.kernels.triton.ops", "Triton").TritonOps()
            return ops, "fused by Triton"
        ops = load_for_cpu("server.kernels.cpu.ops", device, hidden).CpuOps(dtype or hidden, rows)
    except Unfit as fault:
        return TORCH, f"plain torch; {fault}"
    return ops, "our own kernels"


def load_for_cpu(module: str, device: torch.device, hidden: torch.dtype) -> ModuleType:
    """Imports a module made of kernels for CPUs.

    Args:
        hidden: type of hidden states.

    Raises:
        Unfit: they do not run here.
    """
    if device.type != "cpu":
        raise Unfit("the kernels for CPUs need one")
    if hidden != torch.float32:
        raise Unfit(f"the kernels for CPUs do not compute in {_name(hidden)}")
    if fault := _load("server.kernels.cpu.team", "numba").missing():
        raise Unfit(f"the kernels for CPUs do not run: {fault}")
    return _load(module, "numba")


def _flash3(device: torch.device, dtype: torch.dtype) -> Backend:
    _check_flash("flash-attn 3", device, dtype)
    if torch.cuda.get_device_capability(device) != HOPPER:
        raise Unfit("flash-attn 3 is for Hopper GPUs")
    flash = _load("server.kernels.flash3", "flash-attn 3")
    batch = flash.Flash3Batch
    return Backend("fa3", flash.BLOCK_SIZE, batch, "flash-attn 3 is there", dtype, batch)


def _flash(device: torch.device, dtype: torch.dtype) -> Backend:
    _check_flash("flash-attn", device, dtype)
    flash = _load("server.kernels.flash", "flash-attn")
    batch = flash.FlashBatch
    return Backend("flash_attn", flash.BLOCK_SIZE, batch, "flash-attn is there", dtype, batch)


def _triton(device: torch.device, dtype: torch.dtype, head_dim: int) -> Backend:
    if device.type != "cuda":
        raise Unfit("the kernels in Triton need a CUDA device")
    if head_dim < 16 or head_dim.bit_count() != 1:
        raise Unfit(f"the kernels in Triton have no heads of width {head_dim}")
    attention = _load("server.kernels.triton.attention", "Triton")
    batch = attention.TritonBatch
    return Backend("triton", attention.BLOCK_SIZE, batch, "our own kernels", dtype, batch)


def _cpu(device: torch.device, dtype: torch.dtype, head_dim: int) -> Backend:
    hidden = torch.float32 if dtype == torch.bfloat16 else dtype
    attention = load_for_cpu("server.kernels.cpu.attention", device, hidden)
    tiles = load_for_cpu("server.kernels.cpu.tiles", device, hidden)
    if dtype == torch.bfloat16 and not tiles.multiplies_bfloat16():
        raise Unfit("this CPU does not multiply bfloat16")
    if head_dim % attention.HEAD_DIM_UNIT:
        raise Unfit(f"the kernels for CPUs have no heads of width {head_dim}")
    repeat = load_for_cpu("server.kernels.cpu.repeat", device, hidden).RepeatedSteps
    return Backend(
        "cpu",
        attention.BLOCK_SIZE,
        attention.CpuBatch,
        "our own kernels",
        hidden,
        repeat=repeat,
    )


def _check_flash(name: str, device: torch.device, dtype: torch.dtype) -> None:
    if device.type != "cuda":
        raise Unfit(f"{name} needs a CUDA device")
    if dtype not in FLASH_DTYPES:
        raise Unfit(f"{name} does not compute in {_name(dtype)}")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _load(module: str, name: str) -> ModuleType:
    """Imports what may not be installed, or may be built for another torch: then its library does
    not load, or loads and lacks what it should have."""
    try:
        return importlib.import_module(module)
    except (ImportError, OSError, AttributeError, RuntimeError) as error:
        # The first line tells, the rest is symbols.
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise Unfit(f"{name} cannot be imported: {first[:200]}") from error
