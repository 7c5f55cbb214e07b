"""The weights of a rank: read or made up, packed, told of, and held against the plan."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from server.distributed.groups import Groups
from server.kernels.backends import Backend
from server.model.checkpoint import held_bytes, linears
from server.model.dummy import dummy_model
from server.model.internvl import InternVLChat
from server.model.packing import plain_packing
from server.model.quantization import packing
from server.model.reading import Progress
from server.model.shards import RankShard
from server.model.spec import ModelSpec
from server.model.weights import load_model
from server.runner.memory import GIB
from server.settings import Settings

PLAN_ERROR = 0.05

PROGRESS_S = 5.0
"""How often the progress of loading is logged."""

log = logging.getLogger(__name__)


def make_model(
    settings: Settings,
    folder: Path,
    spec: ModelSpec,
    *,
    backend: Backend,
    dtype: torch.dtype,
    device: torch.device,
    shard: RankShard,
    groups: Groups,
    planned_bytes: int,
) -> InternVLChat:
    """This rank's part, read or made up, in the form that its device multiplies best.

    Args:
        planned_bytes: what its weights should take.
    """
    hidden = backend.hidden
    plain = plain_packing(device, hidden, dtype)
    pack = packing(settings.quantization, device, dtype) or plain
    if settings.load_format == "dummy":
        log.warning("--load-format dummy: the weights are RANDOM")
        build: Callable[..., InternVLChat] = partial(dummy_model, spec, hidden, device)
    else:
        build = partial(load_model, folder, spec, hidden, device, log_progress())
    model = build(shard=shard, groups=groups, pack=pack)
    if plain:
        for linear in linears(model):
            linear.pack(plain)
    check_weights(planned_bytes, _held_bytes(model, device))
    return model


def check_weights(planned_bytes: int, taken_bytes: int) -> None:
    """Tells what the weights take; more than 5 % beside the plan is a mistake of ours."""
    log.info("weights: %.2f GiB, planned %.2f", taken_bytes / GIB, planned_bytes / GIB)
    if abs(taken_bytes - planned_bytes) > PLAN_ERROR * planned_bytes:
        log.warning("the plan of memory is wrong by more than %.0f %%", 100 * PLAN_ERROR)


def _held_bytes(model: InternVLChat, device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return held_bytes(model)


def log_progress() -> Callable[[Progress], None]:
    """Tells every few seconds how far loading has come, and once when it is done."""
    told_s = 0.0

    def tell(progress: Progress) -> None:
        nonlocal told_s
        done = progress.done_bytes == progress.total_bytes
        if not done and progress.elapsed_s - told_s < PROGRESS_S:
            return
        told_s = progress.elapsed_s
        log.info(
            "loaded %.2f of %.2f GiB at %.2f GB/s%s",
            progress.done_bytes / GIB,
            progress.total_bytes / GIB,
            progress.bytes_s / 1e9,
            "" if done else f", {progress.left_s:.0f} s left",
        )

    return tell
