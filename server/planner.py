"""`internvl-serve plan`: whether a model fits a set of GPUs, from its config and headers alone.

The arithmetic is that of the daemon: the shard plan tells what each rank holds, and what weights,
activations and reserve leave becomes KV cache. Of a Hub id only config.json is downloaded; in a
folder the headers of the weight files are compared with it.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, get_args

from server.errors import CheckpointError, StartupError
from server.model.footprint import RankMemory, plan_memory
from server.model.headers import read_header
from server.model.shards import ShardPlan, text_weights, vision_weights
from server.model.spec import ModelSpec
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
class Layout:
    """A model on a set of GPUs."""

    spec: ModelSpec
    gpus: Gpus
    ranks: tuple[RankMemory, ...]
    vision_tp: int
    quantization: Quantization

    @classmethod
    def make(
        cls,
        spec: ModelSpec,
        gpus: Gpus,
        vision_tp: int | None = None,
        quantization: Quantization = "none",
    ) -> Layout:
        plan = ShardPlan.make(spec, gpus.count, vision_tp)
        size = 4 if spec.dtype == "float32" else 2
        ranks = plan_memory(spec, plan, bytes_per_value=size, quantization=quantization)
        return cls(spec, gpus, ranks, plan.vision_tp, quantization)

    @property
    def reserve(self) -> int:
        return int(RESERVE_BYTES + RESERVE_SHARE * self.gpus.memory_gb * GB)

    def kv(self, rank: RankMemory) -> int:
        """Bytes left for a rank's KV cache; negative when it does not fit."""
        memory = int(self.gpus.memory_gb * GB * UTILISATION)
        return memory - rank.weights - rank.activations - self.reserve

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
    def step_floor_ms(self) -> float:
        """Least time of a decode step: reading the language model once."""
        read = max(rank.text for rank in self.ranks)
        return read / (self.gpus.bandwidth_gb_s * GB) * 1000

    def describe(self) -> list[str]:
        """A table for people."""
        lines = [
            "| rank | heads (KV) | MLP columns | vision heads | language GiB | vision GiB "
            "| activations GiB | reserve GiB | KV GiB | KV tokens | contexts |",
            f"|{' ---: |' * 11}",
        ]
        for rank in self.ranks:
            text, vision = rank.shard.text, rank.shard.vision
            tokens = max(0, self.kv(rank) // rank.kv_token)
            lines.append(
                f"| {rank.shard.rank} | {len(text.heads)} ({len(text.kv_heads)}) "
                f"| {len(text.mlp)} | {len(vision.heads)} | {rank.text / GIB:.1f} "
                f"| {rank.vision / GIB:.1f} | {rank.activations / GIB:.1f} "
                f"| {self.reserve / GIB:.1f} | {self.kv(rank) / GIB:.1f} "
                f"| {tokens} | {tokens / self.spec.text.max_positions:.1f} |"
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

    def weights(self) -> str:
        if self.quantization == "none":
            return self.spec.dtype
        return f"language model in {self.quantization}, the rest in {self.spec.dtype}"

    def verdict(self) -> str:
        if self.fits:
            return (
                f"fits: {self.kv_tokens} tokens of context, {self.contexts:.1f} of "
                f"{self.spec.text.max_positions}"
            )
        worst = min(self.ranks, key=self.kv)
        lacking = worst.kv_token * self.spec.text.max_positions - self.kv(worst)
        return (
            f"does not fit: rank {worst.shard.rank} lacks {lacking / GIB:.1f} GiB for one context "
            f"of {self.spec.text.max_positions}. {self._advice()}"
        )

    def _advice(self) -> str:
        """The smallest changes that would do."""
        found = list(self._fewer_bits())
        cards, quantised = self._cards(self.quantization), self._cards("int4")
        if cards:
            found.append(f"{cards} cards of {self.gpus.memory_gb} GB")
        if quantised and quantised < (cards or 9):
            found.append(f"{quantised} cards of {self.gpus.memory_gb} GB with int4")
        return f"{' or '.join(found)} would do." if found else "Not even 8 of these cards would do."

    def _fewer_bits(self) -> Iterator[str]:
        fewer: dict[Quantization, tuple[Quantization, ...]] = {"none": ("int8", "int4"), "int4": ()}
        for quantization in fewer.get(self.quantization, ("int4",)):
            if Layout.make(self.spec, self.gpus, self.vision_tp, quantization).fits:
                yield f"--quantization {quantization}"
                return

    def _cards(self, quantization: Quantization) -> int | None:
        """How many more of these cards would do."""
        for count in range(self.gpus.count + 1, 9):
            gpus = Gpus(count, self.gpus.memory_gb)
            try:
                if Layout.make(self.spec, gpus, quantization=quantization).fits:
                    return count
            except StartupError:
                return None
        return None


def check_headers(folder: Path, spec: ModelSpec) -> int:
    """Compares the weight files in a folder with its config; returns how many tensors they hold.

    Raises:
        CheckpointError: they hold another model.
    """
    counts = {"language_model": 0, "vision": 0}
    tensors = 0
    for path in sorted(folder.glob("*.safetensors")):
        for name, entry in read_header(path).entries.items():
            if not name.endswith(".rotary_emb.inv_freq"):
                part = "language_model" if name.startswith("language_model.") else "vision"
                counts[part] += prod(entry.shape)
                tensors += 1
    whole = replace(spec, vision=replace(spec.vision, layers_used=spec.vision.num_layers))
    shard = ShardPlan.make(whole, 1).ranks[0]
    wanted = {
        "language_model": text_weights(spec.text, shard.text),
        "vision": vision_weights(whole, shard),
    }
    for part, count in counts.items():
        if tensors and count != wanted[part]:
            raise CheckpointError(
                f"the weight files hold {count} parameters of the {part.replace('_', ' ')}, "
                f"config.json speaks of {wanted[part]}"
            )
    return tensors


def add_command(commands: Any) -> None:
    """Adds `plan` to the subcommands of a parser."""
    command = commands.add_parser("plan", help="tell whether a model fits a set of GPUs")
    command.add_argument("--model", required=True, help="folder of a checkpoint, or a Hub id")
    command.add_argument("--revision", help="branch, tag or commit of a Hub id")
    command.add_argument(
        "--gpus", action="append", required=True, metavar="NxMGB", help="4x48GB; repeat to compare"
    )
    command.add_argument(
        "--quantization", choices=get_args(Quantization), default="none", help="as of `serve`"
    )
    command.add_argument(
        "--vision-tensor-parallel-size", type=int, metavar="N", help="ranks that share a tower"
    )


def run(arguments: argparse.Namespace, folder: Path) -> int:
    """Prints a plan for each set of GPUs; 1 when one of them does not fit."""
    spec = ModelSpec.load(folder)
    layouts = [
        Layout.make(
            spec,
            Gpus.parse(text),
            arguments.vision_tensor_parallel_size,
            arguments.quantization,
        )
        for text in arguments.gpus
    ]
    tensors = check_headers(folder, spec)
    print(f"from config.json{f' and the headers of {tensors} tensors' if tensors else ''}\n")
    for layout in layouts:
        print(f"{layout.gpus.count} x {layout.gpus.memory_gb} GB, {layout.weights()}\n")
        print("\n".join(layout.describe()) + "\n")
    return 0 if all(layout.fits for layout in layouts) else 1
