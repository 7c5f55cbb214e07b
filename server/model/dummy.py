"""The model with random weights made where they are needed: for measuring a machine before 80 GB
are downloaded. Speed does not depend on what the weights mean, but they must not be zero."""

from __future__ import annotations

import torch

from server.distributed.groups import Groups
from server.model.checkpoint import Part, fillings
from server.model.internvl import InternVLChat
from server.model.layers import META, Pack, new_on
from server.model.llama import kept_dtype
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
    pack: Pack | None = None,
) -> InternVLChat:
    """Matrices from a normal distribution, the same at every start; norms and scales that leave
    things as they are. For `pack` see `load_model`."""
    new = new_on(device, dtype)
    table = new_on(device, kept_dtype(getattr(torch, spec.dtype), dtype))
    model = InternVLChat(spec, new, shard, groups, META if pack else None, table=table)
    generator = torch.Generator(device).manual_seed(0)
    for filling in fillings(model):
        deferred = filling.deferred
        if deferred:
            deferred.allocate(new)
        for name, part in filling.parts:
            _fill(name, part, generator)
        if deferred and pack:
            deferred.pack(pack)
    return model


def _fill(name: str, part: Part, generator: torch.Generator) -> None:
    if part.target.dim() > 1:
        part.target.normal_(std=STD, generator=generator)
    elif name.endswith(".bias"):
        part.target.zero_()
    else:
        part.target.fill_(1.0)
