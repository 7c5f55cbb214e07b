"""Trains the demo model from nothing and writes its checkpoint.

    python -m server.demo.train [FOLDER] [--run RUN] [--device cpu|cuda] [--seed N] [--longer N]

Everything follows from the seed. The run keeps its state in RUN every few minutes and goes on from
there when it is started again; with --export the last state is written as a checkpoint, no more.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

import torch

from server import host
from server.demo import tokenizer
from server.demo.examples import WEIGHTS, Recipe
from server.demo.fused import can_compile
from server.demo.layout import CheckpointShape
from server.demo.pictures import Wear
from server.demo.scenes import Kind
from server.demo.training import Stage, Training
from server.model.locate import DEMO

SHAPE = CheckpointShape(
    image_size=224,
    vision_hidden=160,
    vision_layers=6,
    vision_heads=5,
    vision_mlp=384,
    text_hidden=224,
    text_layers=4,
    text_heads=7,
    text_kv_heads=1,
    head_dim=32,
    text_mlp=448,
    vocab_size=tokenizer.VOCAB_SIZE,
)
"""64 tokens a picture; 5 vision heads, and 7 query heads to the one KV head."""

_TOWER_KINDS: tuple[Kind, ...] = ("figures", "labels", "labels", "both", "both")
_TEXT_KINDS: tuple[Kind, ...] = ("figures", "labels", "labels", "both", "both", "both")

_WHOLE = Recipe(size_px=224, grid=3, pictures=36, tokens=180)
_TEXT = replace(
    _WHOLE,
    kinds=_TEXT_KINDS,
    pairs=36,
    weights=WEIGHTS | {"reading": 7.0, "json": 0.6, "description": 0.6},
    wear=Wear(canvases=0.8, files=0.4),
)
_HARDEST = replace(
    _TEXT,
    kinds=("figures", *_TEXT_KINDS),
    pairs=45,
    weights=WEIGHTS | {"counting": 3.0, "reading": 6.0, "json": 0.5, "description": 0.6},
)
_AS_SENT = replace(_HARDEST, pairs=30, wear=Wear(canvases=0.95, files=0.8))
STAGES = (
    Stage(Recipe(size_px=112, grid=2, pictures=64, tokens=0, kinds=_TOWER_KINDS), steps=1200),
    Stage(Recipe(size_px=140, grid=2, pictures=40, tokens=0, kinds=_TOWER_KINDS), steps=300),
    Stage(_WHOLE, steps=300),
    Stage(_WHOLE, steps=2400, teaches="both", rates=(1.0, 0.55)),
    Stage(_TEXT, steps=2250, teaches="both", rates=(0.55, 0.0)),
    Stage(_HARDEST, steps=600, teaches="language", rates=(0.3, 0.0)),
    Stage(_AS_SENT, steps=450, teaches="both", rates=(0.25, 0.0)),
)
"""The tower learns to see alone, on small pictures, which hold less, and at last nearly in the size
of whole ones; then the language model to speak about what the tower sees; then both together, later
mostly what takes longest: text. The language model alone, whose steps are short, learns the hardest
questions; at last both see pictures as clients send them, files of any size and aspect."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the demo model.")
    parser.add_argument("folder", type=Path, nargs="?", default=DEMO)
    parser.add_argument("--run", type=Path, default=Path(".cache/demo-run"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count(), help="processes that draw pictures"
    )
    parser.add_argument("--longer", type=int, default=1, help="times the steps; for a GPU")
    parser.add_argument("--export", action="store_true", help="take no more steps")
    arguments = parser.parse_args()
    host.keep()
    device = torch.device(arguments.device)
    compiles = device.type == "cpu" and can_compile() and not arguments.export
    training = Training(arguments.run, SHAPE, arguments.seed, device, compiles=compiles)
    stages = [] if arguments.export else [stage.longer(arguments.longer) for stage in STAGES]
    first_step = 0
    for stage in stages:
        if training.steps_done < first_step + stage.steps:
            training.stage(stage, first_step, arguments.workers)
        first_step += stage.steps
    training.export(arguments.folder)


if __name__ == "__main__":
    main()
