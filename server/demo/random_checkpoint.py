"""Checkpoints with seeded random weights, in the folder layout of InternVL-Chat-V1-2.

Made in several sizes by tests and benchmarks. The answers mean
nothing, but everything about them is real: the architecture with its uneven heads, the file layout,
the tokenizer's conventions, and logits that depend on text and picture alike. Equal arguments give
equal bytes.

    python -m server.demo.random_checkpoint FOLDER [--shape tiny|mid] [--seed N]
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from server.demo.layout import CheckpointShape, write_json, write_json_files
from server.demo.random_tokenizer import train_tokenizer
from server.model.checkpoint import checkpoint_tensors
from server.model.internvl import InternVLChat
from server.model.layers import META
from server.model.spec import ModelSpec, parse_config

SHARDS = 3

TINY = CheckpointShape(
    image_size=112,
    vision_hidden=80,
    vision_layers=3,
    vision_heads=5,
    vision_mlp=200,
    text_hidden=112,
    text_layers=4,
    text_heads=14,
    text_kv_heads=2,
    head_dim=8,
    text_mlp=256,
    vocab_size=1024,
)
"""Under 3 MB: 16 tokens a picture, 5 vision heads, 7 query heads to a KV head."""

MID = CheckpointShape(
    image_size=448,
    vision_hidden=512,
    vision_layers=8,
    vision_heads=8,
    vision_mlp=2048,
    text_hidden=1024,
    text_layers=16,
    text_heads=16,
    text_kv_heads=4,
    head_dim=64,
    text_mlp=2816,
    vocab_size=32009,
)
"""Large enough to measure: 256 tokens a picture, about half a gigabyte."""


def write_random_checkpoint(folder: Path, *, seed: int = 0, shape: CheckpointShape = TINY) -> None:
    """Writes a whole checkpoint into `folder`, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    config = write_json_files(folder, shape)
    (folder / "tokenizer.model").write_bytes(train_tokenizer(shape.vocab_size))
    _write_weights(folder, parse_config(config), seed)


def _write_weights(folder: Path, spec: ModelSpec, seed: int) -> None:
    shapes = checkpoint_tensors(InternVLChat(spec, META))
    total_bytes = sum(2 * tensor.numel() for tensor in shapes.values())
    shards: list[dict[str, Tensor]] = [{} for _ in range(SHARDS)]
    written_bytes = 0
    for name, tensor in shapes.items():
        shards[written_bytes * SHARDS // total_bytes][name] = tensor
        written_bytes += 2 * tensor.numel()
    generator = torch.Generator().manual_seed(seed)
    weight_map: dict[str, str] = {}
    for index, shard in enumerate(shards, start=1):
        file = f"model-{index:05}-of-{SHARDS:05}.safetensors"
        weights = {name: _draw(name, tensor.shape, generator) for name, tensor in shard.items()}
        (folder / file).write_bytes(save(weights, metadata={"format": "pt"}))
        weight_map |= dict.fromkeys(shard, file)
    index_content = {"metadata": {"total_size": total_bytes}, "weight_map": weight_map}
    write_json(folder / "model.safetensors.index.json", index_content)


def _draw(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Values that keep activations near 1 and logits at a deviation near 2.5."""
    # Uniform, because its arithmetic is exact: the same bytes on every machine.
    noise = (torch.rand(shape, generator=generator) - 0.5) * math.sqrt(12)
    if "norm" in name or name == "mlp1.0.weight":
        values = 1 + 0.1 * noise
    elif name.endswith((".ls1", ".ls2")):
        values = 0.5 + 0.05 * noise
    elif name.endswith(("bias", "_embedding")):
        values = 0.1 * noise
    elif name.endswith("embed_tokens.weight"):
        values = noise
    else:
        gain = 2.5 if "lm_head" in name else 1.5
        values = noise * gain / math.sqrt(math.prod(shape[1:]))
    return values.bfloat16()


def main() -> None:
    shapes = {"tiny": TINY, "mid": MID}
    parser = argparse.ArgumentParser(description="Write a checkpoint with random weights.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=sorted(shapes), default="tiny")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write_random_checkpoint(arguments.folder, seed=arguments.seed, shape=shapes[arguments.shape])


if __name__ == "__main__":
    main()
