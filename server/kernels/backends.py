"""Which attention runs here, decided once at start and said why."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

import torch

from server.errors import StartupError
from server.kernels import sdpa
from server.kernels.attention import AttentionBatch, DecodeBatch

FLASH_DTYPES = (torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True)
class Backend:
    """An implementation of paged attention."""

    name: str
    block_size: int
    """Tokens of a block in the KV cache."""
    batch: type[AttentionBatch]
    reason: str
    """Why it was chosen, for people to read."""
    decode: type[DecodeBatch] | None = None
    """The same where its decode steps can be captured in graphs."""


def choose_backend(wanted: str, device: torch.device, dtype: torch.dtype) -> Backend:
    """The backend `wanted`, or the fastest that works for `auto`.

    Raises:
        StartupError: the wanted one does not work here; the message says why.
    """
    if wanted == "torch":
        return _torch("chosen")
    backend, fault = _probe_flash(device, dtype)
    if backend is not None:
        return backend
    if wanted == "auto":
        return _torch(fault)
    raise StartupError(f"--attention-backend {wanted}: {fault}")


def _torch(reason: str) -> Backend:
    return Backend("torch", sdpa.BLOCK_SIZE, sdpa.SdpaBatch, reason)


def _probe_flash(device: torch.device, dtype: torch.dtype) -> tuple[Backend | None, str]:
    """flash-attn, or why it cannot be used."""
    if device.type != "cuda":
        return None, "flash-attn needs a CUDA device"
    if dtype not in FLASH_DTYPES:
        return None, f"flash-attn does not compute in {str(dtype).removeprefix('torch.')}"
    try:
        flash = importlib.import_module("server.kernels.flash")
    except (ImportError, OSError) as error:
        # OSError: built for another torch. The first line tells, the rest is symbols.
        return None, f"flash-attn cannot be imported: {str(error).splitlines()[0][:200]}"
    batch = flash.FlashBatch
    return Backend("flash_attn", flash.BLOCK_SIZE, batch, "flash-attn is there", batch), ""
