"""A model on a set of GPUs: what each rank holds, and what that leaves for the KV cache.

The arithmetic is that of the daemon: the shard plan tells what a rank holds, `model/footprint.py`
what that takes. Sizes of cards are in GB as vendors count them. Imports no torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from server.errors import StartupError
from server.model.footprint import VALUE_BYTES, RankMemory, plan_memory
from server.model.shards import ShardPlan
from server.model.spec import ModelSpec
from server.model.towers import choose_vision_tp
from server.settings import Quantization

GIB = 2**30
GB = 10**9

UTILISATION = 0.92
"""Share of a GPU's memory that a process can count on; drivers and other contexts take the rest."""

RESERVE_BYTES = 1 * GB
RESERVE_SHARE = 0.01
"""Graphs, communication buffers and what allocation loses: more on larger cards."""

BANDWIDTHS_GB_S = {24: 600, 32: 1500, 40: 1400, 48: 800, 80: 3000, 96: 1600, 141: 4300, 192: 7000}
"""Memory bandwidth that cards of a size (in GB) reach, cautiously; for the floor of a step."""

TENSOR_PARALLEL_MAX = 8
STAGES_MAX = 16


@dataclass(frozen=True, slots=True)
class Gpus:
    """Equal cards."""

    count: int
    memory_gb: int

    def __str__(self) -> str:
        return f"{self.count}x{self.memory_gb}GB"

    @classmethod
    def parse(cls, text: str) -> Gpus:
        """`4x48GB`, `1x141`, or `80GB` for one.

        Raises:
            StartupError: it is none of these.
        """
        match = re.fullmatch(r"(?:(\d+)x)?(\d+)(?:GB)?", text.strip(), re.IGNORECASE)
        most = TENSOR_PARALLEL_MAX * STAGES_MAX
        if match is None or int(match[2]) < 1 or not 1 <= int(match[1] or 1) <= most:
            raise StartupError(
                f"--gpus {text}: write 4x48GB for four cards of 48 GB, {most} at most"
            )
        return cls(int(match[1] or 1), int(match[2]))

    @property
    def usable_bytes(self) -> int:
        """Of each card."""
        return int(self.memory_gb * GB * UTILISATION)

    @property
    def reserve_bytes(self) -> int:
        """Of those, what nothing is planned in."""
        return int(RESERVE_BYTES + RESERVE_SHARE * self.memory_gb * GB)

    @property
    def bandwidth_gb_s(self) -> int:
        """Of the known size that is nearest."""
        return BANDWIDTHS_GB_S[min(BANDWIDTHS_GB_S, key=lambda size: abs(size - self.memory_gb))]


@dataclass(frozen=True, slots=True)
class Split:
    """How ranks, one on each card, share a model."""

    size: int
    """Ranks of a stage."""
    stages: int = 1
    vision_tp: int | None = None
    """Ranks that share a tower; None for what the daemon would choose."""
    slow_link: bool = False
    """Whether the ranks of a stage are not joined by something like NVLink."""

    @classmethod
    def of(
        cls,
        gpus: Gpus,
        size: int | None,
        stages: int | None,
        vision_tp: int | None = None,
        *,
        slow_link: bool = False,
    ) -> Split:
        """What is None follows from the number of cards; with neither there is one stage.

        Raises:
            StartupError: they are not as many ranks as there are cards, or more than `serve` takes.
        """
        if size is None:
            size = gpus.count // (stages or 1)
        if stages is None:
            stages = gpus.count // size
        if size * stages != gpus.count:
            raise StartupError(
                f"--gpus {gpus}: --tensor-parallel-size {size} x --pipeline-parallel-size {stages} "
                f"are {size * stages} ranks, and each card takes one"
            )
        if size > TENSOR_PARALLEL_MAX:
            raise StartupError(
                f"--gpus {gpus}: at most {TENSOR_PARALLEL_MAX} ranks share a layer; divide the "
                "cards into stages with --pipeline-parallel-size"
            )
        if stages > STAGES_MAX:
            raise StartupError(
                f"--gpus {gpus}: --tensor-parallel-size {size} makes {stages} stages, and "
                f"--pipeline-parallel-size is at most {STAGES_MAX}"
            )
        return cls(size, stages, vision_tp, slow_link)

    def flags(self) -> str:
        """Those of `serve`."""
        flags = f"--tensor-parallel-size {self.size}"
        return flags + f" --pipeline-parallel-size {self.stages}" * (self.stages > 1)


@dataclass(frozen=True, slots=True)
class Layout:
    """A model on a set of GPUs.

    Attributes:
        ranks: in their order: those of the last stage first.
    """

    spec: ModelSpec
    gpus: Gpus
    split: Split
    dtype: str
    quantization: Quantization
    vision_tp: int
    ranks: tuple[RankMemory, ...]

    @classmethod
    def make(
        cls,
        spec: ModelSpec,
        gpus: Gpus,
        split: Split | None = None,
        quantization: Quantization = "none",
        dtype: str = "auto",
    ) -> Layout:
        """By default all cards are one stage, and the type is the checkpoint's."""
        split = split or Split.of(gpus, None, None)
        dtype = spec.dtype if dtype == "auto" else dtype
        size = VALUE_BYTES[dtype]
        vision_tp = split.vision_tp
        if vision_tp is None:
            vision_tp = choose_vision_tp(
                spec,
                split.size,
                stages=split.stages,
                slow_link=split.slow_link,
                memory_bytes=gpus.usable_bytes - gpus.reserve_bytes,
                bytes_per_value=size,
                quantization=quantization,
            )
        plan = ShardPlan.make(spec, split.size, vision_tp, stages=split.stages)
        ranks = plan_memory(spec, plan, bytes_per_value=size, quantization=quantization)
        return cls(spec, gpus, split, dtype, quantization, plan.vision_tp, ranks)

    def quantised(self, quantization: Quantization) -> Layout:
        return Layout.make(self.spec, self.gpus, self.split, quantization, self.dtype)

    def kv(self, rank: RankMemory) -> int:
        """Bytes left for a rank's KV cache; negative when it does not fit."""
        gpus = self.gpus
        return gpus.usable_bytes - gpus.reserve_bytes - rank.weights - rank.activations

    @property
    def kv_tokens(self) -> int:
        """Context that fits all ranks; 0 when a rank has no room."""
        return max(0, min(self.kv(rank) // rank.kv_token for rank in self.ranks))

    @property
    def contexts(self) -> float:
        return self.kv_tokens / self.spec.text.max_positions

    @property
    def fits(self) -> bool:
        """Whether at least one full context fits beside the weights."""
        return self.contexts >= 1

    @property
    def stage_floors_ms(self) -> list[float]:
        """Least time of a decode step in each stage: reading its part of the language model."""
        size, ranks = self.split.size, self.ranks
        read = [max(r.text for r in ranks[i : i + size]) for i in range(0, len(ranks), size)]
        return [part / (self.gpus.bandwidth_gb_s * GB) * 1000 for part in reversed(read)]
