"""From settings and a checkpoint folder to a runner that is ready to serve."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch

from server import host
from server.distributed.groups import Group, Groups
from server.distributed.meeting import Meeting
from server.distributed.place import Place
from server.errors import StartupError
from server.kernels.attention import KVCache
from server.kernels.backends import choose_backend, choose_ops
from server.kernels.cpu.openmp import disband
from server.messages import Ready
from server.model.footprint import RankMemory, plan_memory
from server.model.packing import plain_bytes
from server.model.shards import ShardPlan
from server.model.spec import ModelSpec
from server.runner.calibrate import measured_budget
from server.runner.graphs import CudaCapture
from server.runner.loading import make_model
from server.runner.memory import plan_limits
from server.runner.profile import StepProfile
from server.runner.ranks import Leader
from server.runner.runner import LocalRunner
from server.settings import Settings

ROUNDED = ("none", "int8")
"""Quantisations whose products on a CPU take rows in the type of products; others want float32."""

STEP_S, CPU_STEP_S = 0.05, 0.5
"""Longest pause of a stream by default: docs/decisions/036-longer-steps-on-a-cpu.md."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RankPlace:
    """Which of how many ranks this process is."""

    rank: int = 0
    local_rank: int = 0
    """Among those of this host."""
    local_ranks: int = 1
    ranks: int = 1


def meet(settings: Settings, where: RankPlace, place: Place) -> Meeting | None:
    """Meets the other ranks, if there are any."""
    if where.ranks == 1:
        return None
    device = choose_device(settings.device, where.local_rank)
    return Meeting(
        place,
        where.rank,
        where.ranks,
        backend="gloo" if device.type == "cpu" else "nccl",
        timeout_s=settings.collective_timeout_s,
    )


def build_rank(
    settings: Settings, folder: Path, where: RankPlace, meeting: Meeting | None = None
) -> LocalRunner:
    """Joins the other ranks, loads this rank's part of the weights and takes the memory.

    Raises:
        CheckpointError: the checkpoint cannot be served.
        StartupError: the settings do not fit this machine.
    """
    spec = ModelSpec.load(folder)
    device = choose_device(settings.device, where.local_rank)
    dtype = choose_dtype(settings.dtype, spec.dtype, device)
    plan = plan_ranks(settings, spec)
    if device.type == "cpu":
        cores = settings.cpu_threads or host.cores()
        torch.set_num_threads(max(1, cores // where.local_ranks))
    else:
        torch.cuda.set_device(device)
    planned = memory_of_ranks(settings, spec, plan, device, dtype)[where.rank]
    backend = choose_backend(settings.attention_backend, device, dtype, spec.text.head_dim)
    log.info("attention: %s (%s)", backend.name, backend.reason)
    rows = rows_dtype(settings.quantization, dtype, backend.hidden)
    ops, reason = choose_ops(device, backend.hidden, dtype, rows)
    log.info("norms, rotation, activations: %s", reason)
    shard = plan.ranks[where.rank]
    groups = Groups() if meeting is None else meeting.join(shard.peers)
    began_s = time.monotonic()
    model = make_model(
        settings,
        folder,
        spec,
        backend=backend,
        dtype=dtype,
        device=device,
        shard=shard,
        groups=groups,
        planned_bytes=planned.weights,
    )
    weights_load_s = time.monotonic() - began_s
    model.use(ops)
    own_room = Room(
        free_bytes(device) // (where.local_ranks if device.type == "cpu" else 1),
        planned.kv_token,
    )
    room = _least_room(own_room, device, groups.world)
    limits = plan_limits(
        settings,
        spec,
        block_size=backend.block_size,
        token_bytes=room.token_bytes,
        free_bytes=room.free_bytes,
        on_cpu=device.type == "cpu",
        stages=plan.stages,
    )
    cache = KVCache.allocate(
        num_layers=len(shard.text.layers),
        num_blocks=limits.kv_blocks + 1,  # the last one is for rows that fill up a graph
        block_size=backend.block_size,
        num_kv_heads=len(shard.text.kv_heads),
        head_dim=spec.text.head_dim,
        dtype=dtype,
        device=device,
    )
    runner = LocalRunner(model, cache, limits, groups, backend.batch)
    disband()  # from here on the runner's thread computes
    runner.weights_load_s = weights_load_s
    if settings.profile_steps:
        path = Path.cwd() / f"internvl-serve-steps-rank{where.rank}.json"
        runner.profile = StepProfile(settings.profile_steps, path, device)
    if backend.decode is not None:
        runner.capture_graphs(backend.decode, CudaCapture())
    if backend.repeat is not None and groups.model.size == 1:
        runner.repeat_steps(backend.repeat)
    return runner


def memory_of_ranks(
    settings: Settings, spec: ModelSpec, plan: ShardPlan, device: torch.device, dtype: torch.dtype
) -> tuple[RankMemory, ...]:
    """What `plan` would print for these settings."""
    backend = choose_backend(settings.attention_backend, device, dtype, spec.text.head_dim)
    return plan_memory(
        spec,
        plan,
        bytes_per_value=backend.hidden.itemsize,
        matrix_bytes=plain_bytes(device, backend.hidden, dtype, spec.dtype),
        kv_bytes=dtype.itemsize,
        quantization=settings.quantization,
    )


def with_memory(ready: Ready, settings: Settings, folder: Path) -> Ready:
    """What API processes are told, with the memory of all ranks."""
    spec = ModelSpec.load(folder)
    plan = plan_ranks(settings, spec)
    device = choose_device(settings.device, 0)
    ranks = memory_of_ranks(settings, spec, plan, device, getattr(torch, ready.dtype))
    kv_tokens = ready.kv_blocks * ready.kv_block_size
    return msgspec.structs.replace(
        ready,
        quantization=settings.quantization,
        weights_bytes=[rank.weights for rank in ranks],
        kv_bytes=[rank.kv_token * kv_tokens for rank in ranks],
        activations_bytes=[rank.activations for rank in ranks],
        stages=plan.stages,
        vision_tp=plan.vision_tp,
    )


def plan_ranks(settings: Settings, spec: ModelSpec) -> ShardPlan:
    """Who holds what."""
    return ShardPlan.make(
        spec,
        settings.tensor_parallel_size,
        settings.vision_tensor_parallel_size,
        stages=settings.pipeline_parallel_size,
    )


@dataclass(frozen=True, slots=True)
class Room:
    """For the KV cache of a rank."""

    free_bytes: int
    token_bytes: int


def _least_room(own: Room, device: torch.device, world: Group) -> Room:
    """Of the rank that has room for the fewest tokens: all caches have equally many blocks."""
    numbers = torch.tensor([own.free_bytes, own.token_bytes], device=device)
    rooms = [Room(*map(int, part)) for part in world.gather(numbers)]
    return min(rooms, key=lambda room: room.free_bytes / room.token_bytes)


def rows_dtype(quantization: str, dtype: torch.dtype, hidden: torch.dtype) -> torch.dtype:
    """Type of the rows that norms and activations write for products on a CPU."""
    return dtype if quantization in ROUNDED else hidden


def target_step_s(settings: Settings) -> float:
    """Longest pause of a stream while prompts are computed."""
    if settings.target_step_ms is not None:
        return settings.target_step_ms / 1000
    return CPU_STEP_S if choose_device(settings.device).type == "cpu" else STEP_S


def settle_budget(runner: LocalRunner | Leader, settings: Settings) -> None:
    """Measures the step budget where the operator has not chosen one. All ranks take part."""
    if settings.step_token_budget is None:
        # In a pipeline a stream gets a token from every P-th step.
        target_s = target_step_s(settings) / runner.limits.stages
        budget = measured_budget(runner, target_s)
        runner.limits = msgspec.structs.replace(runner.limits, step_token_budget=budget)


def choose_device(wanted: str, rank: int = 0) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise StartupError("--device cuda: torch sees no CUDA device; use --device cpu")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted, rank) if wanted == "cuda" else torch.device(wanted)


def choose_dtype(wanted: str, stored: str, device: torch.device) -> torch.dtype:
    """`auto` is the checkpoint's type, except on a CPU that would only emulate it."""
    if wanted == "auto":
        emulated = device.type == "cpu" and not torch.cpu._is_avx512_bf16_supported()
        wanted = "float32" if emulated else stored
    dtype: torch.dtype = getattr(torch, wanted)
    if dtype == torch.float16:
        log.warning(
            "float16: the vision tower's residual stream is large and may overflow; "
            "if answers ignore pictures, use --dtype bfloat16 or float32"
        )
    return dtype


def free_bytes(device: torch.device) -> int:
    """Memory that nobody uses on the device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return host.free_bytes()
