"""Loads a checkpoint folder: every tensor in it is known and used once, every parameter is filled.

All headers are checked before memory is taken, so a wrong checkpoint fails at once and not after
half of its gigabytes. Then the parameters are filled in the model's order, and matrices that are to
be packed are as soon as they are complete: as they were there are never more than a few of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from server.distributed.groups import Groups
from server.errors import CheckpointError
from server.model.checkpoint import EMBEDDINGS, Filling, checkpoint_tensors, fillings
from server.model.internvl import InternVLChat
from server.model.layers import META, NewTensor, Pack, new_on
from server.model.llama import kept_dtype
from server.model.reading import Job, Progress, Readers, read_all
from server.model.shards import RankShard
from server.model.spec import ModelSpec, read_json
from server.model.stored import DTYPES, Stored, read_headers

SINGLE_NAME = "model.safetensors"

FILES = (
    ("model.safetensors.index.json", SINGLE_NAME),
    ("pytorch_model.bin.index.json", "pytorch_model.bin"),
)
"""Index and single file of either form, the preferred one first."""

IGNORED_SUFFIX = ".rotary_emb.inv_freq"
"""Some checkpoints store these; they follow from the config."""


@dataclass(frozen=True, slots=True)
class Shard:
    path: Path
    names: frozenset[str] | None
    """What the index says is in it; None where there is no index."""


def load_model(
    folder: Path,
    spec: ModelSpec,
    dtype: torch.dtype,
    device: torch.device,
    progress: Callable[[Progress], None] | None = None,
    *,
    shard: RankShard | None = None,
    groups: Groups | None = None,
    pack: Pack | None = None,
) -> InternVLChat:
    """Builds the model that `spec` describes, or a rank's part of it, and fills it from the weight
    files in `folder`. All ranks of a group load at the same time.

    Args:
        pack: what becomes of the matrices of the language model's layers, each as soon as it is
            complete.

    Raises:
        CheckpointError: names the file and the tensor that is missing, unknown or misshapen.
    """
    new = new_on(device, dtype)
    stored = check_shards(find_shards(folder), checkpoint_tensors(InternVLChat(spec, META)))
    table = new_on(device, kept_dtype(DTYPES[stored[EMBEDDINGS].dtype], dtype))
    model = InternVLChat(spec, new, shard, groups, META if pack else None, table=table)
    jobs = [_job(filling, stored, new, pack) for filling in fillings(model)]
    with Readers(pinned=device.type == "cuda") as readers:
        read_all(jobs, readers, progress)
    return model


def _job(filling: Filling, stored: Mapping[str, Stored], new: NewTensor, pack: Pack | None) -> Job:
    sources = [(stored[name], part) for name, part in filling.parts]
    linear = filling.deferred
    if linear is None or pack is None:
        return Job(sources)
    return Job(sources, begin=partial(linear.allocate, new), settle=partial(linear.pack, pack))


def find_shards(folder: Path) -> list[Shard]:
    """The weight files of a folder, by name.

    Raises:
        CheckpointError: there are none, or the index is wrong.
    """
    for index, single in FILES:
        if (folder / index).exists():
            return _read_index(folder / index, Path(single).suffix)
        if (folder / single).exists():
            return [Shard(folder / single, None)]
    names = " nor ".join(name for pair in FILES for name in pair)
    raise CheckpointError(f"{folder} holds neither {names}")


def _read_index(path: Path, suffix: str) -> list[Shard]:
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{path.name}: `weight_map` is missing or not an object")
    names: dict[str, set[str]] = {}
    for name, file in weight_map.items():
        # A bare name stays in the folder; what it links to is the owner's business.
        bare = isinstance(file, str) and Path(file).name == file
        if not bare or not file.endswith(suffix):
            raise CheckpointError(
                f"{path.name}: `{name}` is in {file!r}, which is no name of a {suffix} file"
            )
        names.setdefault(file, set()).add(name)
    return [Shard(path.parent / file, frozenset(names[file])) for file in sorted(names)]


def check_shards(shards: list[Shard], expected: Mapping[str, Tensor]) -> dict[str, Stored]:
    """Compares the headers of all shards with the tensors that the model needs, and returns them.

    Raises:
        CheckpointError: for the first difference.
    """
    found: dict[str, Stored] = {}
    for shard in shards:
        stored = read_headers(shard.path)
        _check_index(shard, stored)
        for name in sorted(stored):
            if name.endswith(IGNORED_SUFFIX):
                continue
            if name not in expected or name in found:
                raise CheckpointError(
                    f"{stored[name].place} has no place in the model of config.json"
                )
            _check_tensor(stored[name], expected[name])
            found[name] = stored[name]
    for name, tensor in expected.items():
        if name not in found:
            raise CheckpointError(
                f"{shards[0].path.parent}: `{name}` of shape {list(tensor.shape)} is in none of "
                f"{len(shards)} weight files"
            )
    return found


def _check_index(shard: Shard, stored: Mapping[str, Stored]) -> None:
    if shard.names is None:
        return
    for name in sorted(shard.names ^ stored.keys()):
        where = "in the file but not in the index" if name in stored else "missing"
        raise CheckpointError(f"{shard.path.name}: `{name}` is {where}")


def _check_tensor(stored: Stored, target: Tensor) -> None:
    if stored.dtype not in DTYPES:
        raise CheckpointError(f"{stored.place} has type {stored.dtype}, not {', '.join(DTYPES)}")
    if stored.shape != target.shape:
        raise CheckpointError(
            f"{stored.place} has shape {list(stored.shape)}, expected {list(target.shape)}"
        )
