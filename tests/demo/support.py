"""A demo model small enough to train a step in a test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from server.demo import tokenizer
from server.demo.layout import write_json_files
from server.demo.train import SHAPE
from server.frontend.tokenizer import Tokenizer
from server.model.spec import ModelSpec

SMALL = replace(
    SHAPE,
    image_size=112,
    vision_hidden=40,
    vision_layers=2,
    vision_mlp=64,
    text_hidden=56,
    text_layers=2,
    head_dim=8,
    text_mlp=64,
)


def write_small_folder(folder: Path) -> tuple[ModelSpec, Tokenizer]:
    """A folder without weights."""
    write_json_files(folder, SMALL)
    (folder / "tokenizer.model").write_bytes(tokenizer.train())
    return ModelSpec.load(folder), Tokenizer.load(folder)
