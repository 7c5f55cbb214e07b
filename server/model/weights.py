"""Loads a checkpoint folder: every tensor in it is known and used once, every parameter is filled.

All headers are checked before memory is taken, so a wrong checkpoint fails at once and not after
half of its gigabytes. Then the shards are read one tensor at a time. Only safetensors are read:
loading never executes anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from server.distributed.groups import Groups
from server.errors import CheckpointError
from server.model.checkpoint import Part, checkpoint_parts, checkpoint_tensors
from server.model.internvl import InternVLChat
from server.model.layers import META, new_on
from server.model.shards import RankShard
from server.model.spec import ModelSpec, read_json

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"

STORED_DTYPES = ("BF16", "F16", "F32")

IGNORED_SUFFIX = ".rotary_emb.inv_freq"
"""Some checkpoints store these; they follow from the config."""


@dataclass(frozen=True, slots=True)
class Shard:
    path: Path
    names: frozenset[str] | None
    """What the index says is in it; None where there is no index."""


@dataclass(frozen=True, slots=True)
class ShardLoaded:
    """Shard `index` of `count`, from 1, has been read."""

    name: str
    index: int
    count: int
    size_bytes: int


def load_model(
    folder: Path,
    spec: ModelSpec,
    dtype: torch.dtype,
    device: torch.device,
    progress: Callable[[ShardLoaded], None] | None = None,
    *,
    shard: RankShard | None = None,
    groups: Groups | None = None,
) -> InternVLChat:
    """Builds the model that `spec` describes, or a rank's part of it, and fills it from the
    safetensors in `folder`.

    Raises:
        CheckpointError: names the file and the tensor that is missing, unknown or misshapen.
    """
    shards = find_shards(folder)
    check_shards(shards, checkpoint_tensors(InternVLChat(spec, META)))
    model = InternVLChat(spec, new_on(device, dtype), shard, groups)
    parts = checkpoint_parts(model)
    for index, file in enumerate(shards, start=1):
        _fill(parts, file)
        if progress:
            size_bytes = file.path.stat().st_size
            progress(ShardLoaded(file.path.name, index, len(shards), size_bytes))
    return model


def find_shards(folder: Path) -> list[Shard]:
    """The weight files of a folder, by name.

    Raises:
        CheckpointError: there are none, or the index is wrong.
    """
    if (folder / INDEX_NAME).exists():
        return _read_index(folder)
    if (folder / SINGLE_NAME).exists():
        return [Shard(folder / SINGLE_NAME, None)]
    if any(folder.glob("*.bin")):
        raise CheckpointError(
            f"{folder} holds weights only as .bin files, which can execute code when they are "
            "read; convert them to safetensors"
        )
    raise CheckpointError(f"{folder} holds neither {INDEX_NAME} nor {SINGLE_NAME}")


def _read_index(folder: Path) -> list[Shard]:
    weight_map = read_json(folder / INDEX_NAME).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{INDEX_NAME}: `weight_map` is missing or not an object")
    names: dict[str, set[str]] = {}
    for name, file in weight_map.items():
        # A bare name stays in the folder; what it links to is the owner's business.
        bare = isinstance(file, str) and Path(file).name == file
        if not bare or not file.endswith(".safetensors"):
            raise CheckpointError(
                f"{INDEX_NAME}: `{name}` is in {file!r}, which is no name of a safetensors file"
            )
        names.setdefault(file, set()).add(name)
    return [Shard(folder / file, frozenset(names[file])) for file in sorted(names)]


def check_shards(shards: list[Shard], expected: Mapping[str, Tensor]) -> None:
    """Compares the headers of all shards with the tensors that the model needs.

    Raises:
        CheckpointError: for the first difference.
    """
    missing = dict(expected)
    for shard in shards:
        with _open(shard.path) as file:
            stored = set(file.keys())
            _check_index(shard, stored)
            for name in sorted(stored):
                if name.endswith(IGNORED_SUFFIX):
                    continue
                if name not in missing:
                    raise CheckpointError(
                        f"{shard.path.name}: `{name}` has no place in the model of config.json"
                    )
                place = f"{shard.path.name}: `{name}`"
                _check_tensor(place, file.get_slice(name), missing.pop(name))
    for name, tensor in missing.items():
        raise CheckpointError(
            f"{shards[0].path.parent}: `{name}` of shape {list(tensor.shape)} is in none of "
            f"{len(shards)} weight files"
        )


def _check_index(shard: Shard, stored: set[str]) -> None:
    if shard.names is None:
        return
    for name in sorted(shard.names ^ stored):
        where = "in the file but not in the index" if name in stored else "missing"
        raise CheckpointError(f"{shard.path.name}: `{name}` is {where}")


def _check_tensor(place: str, stored: Any, target: Tensor) -> None:
    dtype, shape = stored.get_dtype(), list(stored.get_shape())
    if dtype not in STORED_DTYPES:
        raise CheckpointError(f"{place} has type {dtype}, not {', '.join(STORED_DTYPES)}")
    if shape != list(target.shape):
        raise CheckpointError(f"{place} has shape {shape}, expected {list(target.shape)}")


def _fill(parts: Mapping[str, list[Part]], shard: Shard) -> None:
    """Reads no more of a tensor than this rank holds."""
    with _open(shard.path) as file:
        for name in file.keys():  # noqa: SIM118 - the file is no mapping
            for part in parts.get(name, []):
                if not part.target.is_meta:
                    part.target.copy_(_cut(file, name, part))


def _cut(file: Any, name: str, part: Part) -> Tensor:
    stored, size = file.get_slice(name), part.target.shape[part.dim]
    if stored.get_shape()[part.dim] == size:
        whole: Tensor = file.get_tensor(name)
        return whole
    cut = (slice(None),) * part.dim + (slice(part.start, part.start + size),)
    piece: Tensor = stored[cut]
    return piece


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path.name} cannot be read: {error}") from None
