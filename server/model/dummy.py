"""The model with random weights made where they are needed: for measuring a machine before 80 GB
are downloaded. Speed does not depend on what the weights mean, but they must not be zero."""

from __future__ import annotations

import torch

from server.distributed.groups import Groups
from server.model.checkpoint import Part, checkpoint_parts
from server.model.internvl import InternVLChat
from server.model.layers import new_on
from server.model.shards import RankShard
from server.model.spec import ModelSpec

STD = 0.02


def dummy_model(
    spec: ModelSpec,
    dtype: torch.dtype,
    device: torch.device,
    *,
    shard: RankShard | None = None,
    groups: Groups | None = None,
) -> InternVLChat:
    """Matrices from a normal distribution, the same at every start; norms and scales that leave
    things as they are."""
    model = InternVLChat(spec, new_on(device, dtype), shard, groups)
    generator = torch.Generator(device).manual_seed(0)
    for name, parts in checkpoint_parts(model).items():
        for part in parts:
            if not part.target.is_meta:
                _fill(name, part, generator)
    return model


def _fill(name: str, part: Part, generator: torch.Generator) -> None:
    if part.target.dim() > 1:
        part.target.normal_(std=STD, generator=generator)
    elif name.endswith(".bias"):
        part.target.zero_()
    else:
        part.target.fill_(1.0)
