"""From settings and a checkpoint folder to a runner that is ready to serve."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import msgspec
import torch

from server.errors import StartupError
from server.kernels.attention import KVCache
from server.model.spec import ModelSpec
from server.model.weights import ShardLoaded, load_model
from server.runner.calibrate import measured_budget
from server.runner.memory import GIB, KV_BLOCK_SIZE, plan_limits
from server.runner.runner import LocalRunner
from server.settings import Settings

log = logging.getLogger(__name__)


def build_runner(settings: Settings, folder: Path) -> LocalRunner:
    """Loads the weights, takes the memory and measures the step budget.

    Raises:
        CheckpointError: the checkpoint cannot be served.
        StartupError: the settings do not fit this machine.
    """
    spec = ModelSpec.load(folder)
    device = choose_device(settings.device)
    dtype = choose_dtype(settings.dtype, spec.dtype, device)
    if device.type == "cpu":
        torch.set_num_threads(settings.cpu_threads or len(os.sched_getaffinity(0)))
    model = load_model(folder, spec, dtype, device, _log_shard)
    limits = plan_limits(
        settings,
        spec,
        bytes_per_value=dtype.itemsize,
        free_bytes=free_bytes(device),
        on_cpu=device.type == "cpu",
    )
    cache = KVCache.allocate(
        num_layers=spec.text.num_layers,
        num_blocks=limits.kv_blocks,
        block_size=KV_BLOCK_SIZE,
        num_kv_heads=spec.text.num_kv_heads,
        head_dim=spec.text.head_dim,
        dtype=dtype,
        device=device,
    )
    runner = LocalRunner(model, cache, limits)
    if settings.step_token_budget is None:
        budget = measured_budget(runner, settings.target_step_ms / 1000)
        runner.limits = msgspec.structs.replace(limits, step_token_budget=budget)
    return runner


def choose_device(wanted: str) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise StartupError("--device cuda: torch sees no CUDA device; use --device cpu")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def choose_dtype(wanted: str, stored: str, device: torch.device) -> torch.dtype:
    """`auto` is the checkpoint's type, except on a CPU that would only emulate it."""
    if wanted == "auto":
        emulated = device.type == "cpu" and not torch.cpu._is_avx512_bf16_supported()
        wanted = "float32" if emulated else stored
    dtype: torch.dtype = getattr(torch, wanted)
    return dtype


def free_bytes(device: torch.device) -> int:
    """Memory that nobody uses on the device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _log_shard(shard: ShardLoaded) -> None:
    log.info(
        "loaded %s (%d of %d, %.2f GiB)",
        shard.name,
        shard.index,
        shard.count,
        shard.size_bytes / GIB,
    )
