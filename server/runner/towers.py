"""Settles how many ranks share a vision tower, where the operator has left it open.

The leader decides and tells the others, because all must come to the same number and memory that is
free is not the same everywhere.
"""

from __future__ import annotations

import logging

import torch

from server.distributed.meeting import Meeting
from server.model.spec import ModelSpec
from server.model.towers import choose_vision_tp
from server.settings import Settings

USABLE = 0.9
"""Share of the free memory; the rest is what allocation loses."""

NOTE = "vision-tp"

log = logging.getLogger(__name__)


def settle_towers(
    settings: Settings,
    spec: ModelSpec,
    meeting: Meeting | None,
    *,
    rank: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Settings:
    """The settings with a number for `--vision-tensor-parallel-size`. All ranks take part."""
    size = settings.tensor_parallel_size
    if settings.vision_tensor_parallel_size is not None or size == 1 or meeting is None:
        return settings
    if rank == 0:
        slow = device.type == "cuda" and slow_link(settings)
        chosen = choose_vision_tp(
            spec,
            size,
            stages=settings.pipeline_parallel_size,
            slow_link=slow,
            memory_bytes=int(USABLE * torch.cuda.mem_get_info(device)[0]) if slow else 0,
            bytes_per_value=dtype.itemsize,
            quantization=settings.quantization,
        )
        if slow:
            log.info("the link between ranks is slow: vision towers of %d ranks", chosen)
        meeting.tell(NOTE, str(chosen))
    chosen = int(meeting.ask(NOTE))
    return settings.model_copy(update={"vision_tensor_parallel_size": chosen})


def slow_link(settings: Settings) -> bool:
    """Whether the ranks of a stage lie on several hosts, or on cards that do not reach each other's
    memory."""
    local = settings.ranks // settings.nnodes
    size = settings.tensor_parallel_size
    if size > local:
        return True
    reach = torch.cuda.can_device_access_peer
    return any(not reach(0, other) for other in range(1, size))
