"""`internvl-serve plan`: whether a model fits a set of GPUs, from its config and headers alone.

Prints a table of what each rank holds, and either that it fits or what would. Of a Hub id only
config.json is downloaded; in a folder the headers of the weight files are compared with it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any, get_args

from server.errors import CheckpointError, StartupError
from server.layout import BANDWIDTHS_GB_S, GIB, Gpus, Layout, Split
from server.model.footprint import RankMemory
from server.model.headers import read_header
from server.model.shards import ShardPlan, text_weights, vision_weights
from server.model.spec import ModelSpec
from server.model.stages import stage_of
from server.settings import Quantization

COLUMNS = (
    *("rank", "stage", "layers", "heads (KV)", "MLP columns", "vision heads", "language GiB"),
    *("vision GiB", "activations GiB", "reserve GiB", "KV GiB", "KV tokens", "contexts"),
)


def describe(layout: Layout) -> list[str]:
    """A table for people, and what follows from it."""
    split, gpus = layout.split, layout.gpus
    towers = split.size // layout.vision_tp
    floors = layout.stage_floors_ms
    held = [rank.weights for rank in layout.ranks]
    excess = 100 * (max(held) * len(held) / sum(held) - 1)
    pace = f", one every {max(floors):.1f} ms" if split.stages > 1 else ""
    return [
        f"{gpus.count} x {gpus.memory_gb} GB, {split.flags()}, {weights(layout)}",
        "",
        _row(COLUMNS),
        f"|{' ---: |' * len(COLUMNS)}",
        *(_row(_cells(layout, rank)) for rank in layout.ranks),
        "",
        f"vision: {towers} tower{'s' * (towers > 1)} of {layout.vision_tp} "
        f"rank{'s' * (layout.vision_tp > 1)}" + ", in the first stage" * (split.stages > 1),
        f"balance: the fullest rank holds {excess:.1f} % more than the mean",
        f"decode step: at least {sum(floors):.1f} ms{pace} at {gpus.bandwidth_gb_s} GB/s",
        verdict(layout),
    ]


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(layout: Layout, rank: RankMemory) -> tuple[str, ...]:
    split, shard, kv = layout.split, rank.shard, layout.kv(rank)
    text, tokens = shard.text, max(0, kv // rank.kv_token)
    return (
        f"{shard.rank}",
        f"{stage_of(shard.rank, split.size, split.stages)}",
        f"{text.layers.start}-{text.layers.stop - 1}",
        f"{len(text.heads)} ({len(text.kv_heads)})",
        f"{len(text.mlp)}",
        f"{len(shard.vision.heads) if text.embeds else 0}",
        *(
            f"{size / GIB:.1f}"
            for size in (rank.text, rank.vision, rank.activations, layout.gpus.reserve_bytes, kv)
        ),
        f"{tokens}",
        f"{tokens / layout.spec.text.max_positions:.1f}",
    )


def weights(layout: Layout) -> str:
    if layout.quantization == "none":
        return layout.dtype
    return f"language model in {layout.quantization}, the rest in {layout.dtype}"


def verdict(layout: Layout) -> str:
    context = layout.spec.text.max_positions
    if layout.fits:
        return f"fits: {layout.kv_tokens} tokens of context, {layout.contexts:.1f} of {context}"
    worst = min(layout.ranks, key=layout.kv)
    lacking = worst.kv_token * context - layout.kv(worst)
    found = list(_remedies(layout))
    most = max(8, layout.gpus.count)
    advice = " or ".join(found) if found else f"Not even {most} of these cards"
    return (
        f"does not fit: rank {worst.shard.rank} lacks {lacking / GIB:.1f} GiB for one context "
        f"of {context}. {advice} would do."
    )


def _remedies(layout: Layout) -> Iterator[str]:
    """The smallest changes that would do."""
    fewer: dict[Quantization, tuple[Quantization, ...]] = {"none": ("int8", "int4"), "int4": ()}
    for quantization in fewer.get(layout.quantization, ("int4",)):
        if layout.quantised(quantization).fits:
            yield f"--quantization {quantization}"
            break
    cards, quantised = _cards(layout, layout.quantization), _cards(layout, "int4")
    if cards:
        yield f"{cards} cards of {layout.gpus.memory_gb} GB"
    if quantised and quantised < (cards or 9):
        yield f"{quantised} cards of {layout.gpus.memory_gb} GB with int4"


def _cards(layout: Layout, quantization: Quantization) -> int | None:
    """How many more of these cards would do, as one stage."""
    for count in range(layout.gpus.count + 1, 9):
        gpus = Gpus(count, layout.gpus.memory_gb)
        try:
            if Layout.make(layout.spec, gpus, None, quantization, layout.dtype).fits:
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
        "--gpus",
        action="append",
        metavar="NxMGB",
        help="4x48GB; repeat to compare. Default: the smallest cards that do for the ranks given",
    )
    for name, metavar, what in (
        ("tensor", "N", "as of `serve`; default: what the cards give"),
        ("pipeline", "P", "as of `serve`; default: what the cards give, else 1"),
        ("vision-tensor", "N", "as of `serve`"),
    ):
        command.add_argument(f"--{name}-parallel-size", type=int, metavar=metavar, help=what)
    command.add_argument(
        "--link",
        choices=("fast", "slow"),
        default="fast",
        help="between the cards of a stage: fast as NVLink, or slow as PCIe without peer access "
        "and as networks are; serve finds out by itself",
    )
    command.add_argument(
        "--quantization", choices=get_args(Quantization), default="none", help="as of `serve`"
    )
    command.add_argument(
        "--dtype",
        choices=("auto", "bfloat16", "float16", "float32"),
        default="auto",
        help="as of `serve`; auto is the checkpoint's",
    )


def run(arguments: argparse.Namespace, folder: Path) -> int:
    """Prints a plan for each set of GPUs; 1 when one of them does not fit."""
    spec = ModelSpec.load(folder)
    layouts = list(_layouts(arguments, spec))
    tensors = check_headers(folder, spec)
    print(f"from config.json{f' and the headers of {tensors} tensors' if tensors else ''}\n")
    for layout in layouts:
        print("\n".join(describe(layout)) + "\n")
    return 0 if all(layout.fits for layout in layouts) else 1


def _layouts(arguments: argparse.Namespace, spec: ModelSpec) -> Iterator[Layout]:
    size, stages = arguments.tensor_parallel_size, arguments.pipeline_parallel_size
    vision_tp = arguments.vision_tensor_parallel_size
    for flag in ("tensor", "pipeline", "vision-tensor"):
        value = getattr(arguments, f"{flag.replace('-', '_')}_parallel_size")
        if value is not None and value < 1:
            raise StartupError(f"--{flag}-parallel-size {value}: give a number from 1 on")

    def layout(gpus: Gpus) -> Layout:
        split = Split.of(gpus, size, stages, vision_tp, slow_link=arguments.link == "slow")
        return Layout.make(spec, gpus, split, arguments.quantization, arguments.dtype)

    if arguments.gpus:
        yield from (layout(Gpus.parse(text)) for text in arguments.gpus)
        return
    if size is None and stages is None:
        raise StartupError("give --gpus, or --tensor-parallel-size and --pipeline-parallel-size")
    ranks = (size or 1) * (stages or 1)
    found = [layout(Gpus(ranks, memory_gb)) for memory_gb in sorted(BANDWIDTHS_GB_S)]
    yield next((one for one in found if one.fits), found[-1])
