"""`internvl-serve plan`: whether a model fits a set of GPUs, from its config alone.

The arithmetic is that of the daemon: the shard plan tells what each rank holds, and what weights,
activations and reserve leave becomes KV cache. Nothing is downloaded but a few kilobytes.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.errors import StartupError
from server.model.shards import RankShard, ShardPlan, text_weights, vision_weights
from server.model.spec import ModelSpec

GIB = 2**30
GB = 10**9

UTILISATION = 0.92
"""Share of a GPU's memory that a process can count on; drivers and other contexts take the rest."""

RESERVE_BYTES = 1 * GB
RESERVE_SHARE = 0.03
"""Activations of a step, graphs and communication buffers: more on larger cards, whose steps are
larger."""

BANDWIDTHS_GB_S = {24: 600, 32: 1500, 40: 1400, 48: 800, 80: 3000, 96: 1600, 141: 4300, 192: 7000}
"""Memory bandwidth that cards of a size (in GB) reach, cautiously; for the floor of a step."""


@dataclass(frozen=True, slots=True)
class Gpus:
    """Equal cards."""

    count: int
    memory_gb: int

    @classmethod
    def parse(cls, text: str) -> Gpus:
        """`4x48GB`, `1x141`, or `80GB` for one.

        Raises:
            StartupError: it is none of these.
        """
        match = re.fullmatch(r"(?:(\d+)x)?(\d+)(?:GB)?", text.strip(), re.IGNORECASE)
        if match is None or int(match[2]) < 1 or not 1 <= int(match[1] or 1) <= 8:
            raise StartupError(f"--gpus {text}: write 4x48GB for four cards of 48 GB, 8 at most")
        return cls(int(match[1] or 1), int(match[2]))

    @property
    def bandwidth_gb_s(self) -> int:
        """Of the known size that is nearest."""
        return BANDWIDTHS_GB_S[min(BANDWIDTHS_GB_S, key=lambda size: abs(size - self.memory_gb))]


@dataclass(frozen=True, slots=True)
class RankBudget:
    """How a rank's memory divides, in bytes."""

    shard: RankShard
    memory: int
    text: int
    vision: int
    reserve: int
    kv_token: int
    """What a token of context takes on this rank."""

    @property
    def kv(self) -> int:
        """Left for the KV cache; negative when it does not fit."""
        return int(self.memory * UTILISATION) - self.text - self.vision - self.reserve


@dataclass(frozen=True, slots=True)
class Layout:
    """A model on a set of GPUs."""

    spec: ModelSpec
    gpus: Gpus
    ranks: tuple[RankBudget, ...]
    vision_tp: int

    @classmethod
    def make(
        cls, spec: ModelSpec, gpus: Gpus, vision_tp: int | None = None, bytes_per_value: int = 2
    ) -> Layout:
        plan = ShardPlan.make(spec, gpus.count, vision_tp)
        memory = gpus.memory_gb * GB
        ranks = tuple(
            RankBudget(
                shard=shard,
                memory=memory,
                text=bytes_per_value * text_weights(spec.text, shard.text),
                vision=bytes_per_value * vision_weights(spec, shard),
                reserve=int(RESERVE_BYTES + RESERVE_SHARE * memory),
                kv_token=2
                * spec.text.num_layers
                * len(shard.text.kv_heads)
                * spec.text.head_dim
                * bytes_per_value,
            )
            for shard in plan.ranks
        )
        return cls(spec, gpus, ranks, plan.vision_tp)

    @property
    def kv_tokens(self) -> int:
        """Context that fits all ranks; 0 when a rank has no room."""
        return max(0, min(rank.kv // rank.kv_token for rank in self.ranks))

    @property
    def contexts(self) -> float:
        return self.kv_tokens / self.spec.text.max_positions

    @property
    def fits(self) -> bool:
        """Whether at least one full context fits beside the weights."""
        return self.contexts >= 1

    @property
    def step_floor_ms(self) -> float:
        """Least time of a decode step: reading the language model once."""
        read = max(rank.text for rank in self.ranks)
        return read / (self.gpus.bandwidth_gb_s * GB) * 1000

    def describe(self) -> list[str]:
        """A table for people."""
        lines = [
            "| rank | heads (KV) | MLP columns | vision heads | language GiB | vision GiB "
            "| reserve GiB | KV GiB | KV tokens |",
            "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        for rank in self.ranks:
            text, vision = rank.shard.text, rank.shard.vision
            lines.append(
                f"| {rank.shard.rank} | {len(text.heads)} ({len(text.kv_heads)}) "
                f"| {len(text.mlp)} | {len(vision.heads)} | {rank.text / GIB:.1f} "
                f"| {rank.vision / GIB:.1f} | {rank.reserve / GIB:.1f} | {rank.kv / GIB:.1f} "
                f"| {max(0, rank.kv // rank.kv_token)} |"
            )
        towers = len(self.ranks) // self.vision_tp
        lines += [
            "",
            f"vision: {towers} tower{'s' * (towers > 1)} of {self.vision_tp} "
            f"rank{'s' * (self.vision_tp > 1)}",
            f"decode step: at least {self.step_floor_ms:.1f} ms at {self.gpus.bandwidth_gb_s} GB/s",
            self.verdict(),
        ]
        return lines

    def verdict(self) -> str:
        if self.fits:
            return (
                f"fits: {self.kv_tokens} tokens of context, {self.contexts:.1f} of "
                f"{self.spec.text.max_positions}"
            )
        worst = min(self.ranks, key=lambda rank: rank.kv)
        context = worst.kv_token * self.spec.text.max_positions
        return (
            f"does not fit: rank {worst.shard.rank} lacks {(context - worst.kv) / GIB:.1f} GiB for "
            f"one context of {self.spec.text.max_positions}. {self._advice()}"
        )

    def _advice(self) -> str:
        """The smallest change of the number of cards that would do."""
        for count in range(self.gpus.count + 1, 9):
            try:
                if Layout.make(self.spec, Gpus(count, self.gpus.memory_gb)).fits:
                    return f"{count} cards of {self.gpus.memory_gb} GB would do."
            except StartupError:
                break
        return "Not even 8 of these cards would do: take larger ones."


def add_command(commands: Any) -> None:
    """Adds `plan` to the subcommands of a parser."""
    command = commands.add_parser("plan", help="tell whether a model fits a set of GPUs")
    command.add_argument("--model", required=True, help="folder of a checkpoint, or a Hub id")
    command.add_argument("--revision", help="branch, tag or commit of a Hub id")
    command.add_argument(
        "--gpus", action="append", required=True, metavar="NxMGB", help="4x48GB; repeat to compare"
    )
    command.add_argument(
        "--vision-tensor-parallel-size", type=int, metavar="N", help="ranks that share a tower"
    )


def run(arguments: argparse.Namespace, folder: Path) -> int:
    """Prints a plan for each set of GPUs; 1 when one of them does not fit."""
    spec = ModelSpec.load(folder)
    layouts = [
        Layout.make(spec, Gpus.parse(text), arguments.vision_tensor_parallel_size)
        for text in arguments.gpus
    ]
    for layout in layouts:
        print(f"{layout.gpus.count} x {layout.gpus.memory_gb} GB\n")
        print("\n".join(layout.describe()) + "\n")
    return 0 if all(layout.fits for layout in layouts) else 1
