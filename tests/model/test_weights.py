"""The loader: a right folder fills everything, and each way to be wrong is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from server.demo.random_checkpoint import write_random_checkpoint
from server.errors import CheckpointError
from server.model.checkpoint import EMBEDDINGS, checkpoint_tensors
from server.model.internvl import InternVLChat
from server.model.llama import kept_dtype
from server.model.reading import Progress
from server.model.spec import ModelSpec
from server.model.weights import load_model

CPU = torch.device("cpu")
INDEX = "model.safetensors.index.json"
BIN_INDEX = "pytorch_model.bin.index.json"
NORM = "language_model.model.norm.weight"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pristine")
    write_random_checkpoint(folder)
    return folder


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(pristine, tmp_path / "checkpoint"))


def load(
    folder: Path,
    dtype: torch.dtype = torch.float32,
    progress: Callable[[Progress], None] | None = None,
) -> InternVLChat:
    return load_model(folder, ModelSpec.load(folder), dtype, CPU, progress)


def stored_tensors(folder: Path) -> dict[str, Tensor]:
    return {
        name: tensor
        for path in sorted(folder.glob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def shard_with(folder: Path, name: str) -> Path:
    file: str = json.loads((folder / INDEX).read_text())["weight_map"][name]
    return folder / file


def edit_shard(folder: Path, name: str, edit: Callable[[dict[str, Tensor]], object]) -> str:
    """Changes the shard that holds `name` but not the index; returns the shard's file name."""
    path = shard_with(folder, name)
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)
    return path.name


def edit_index(folder: Path, edit: Callable[[dict[str, str]], object]) -> None:
    content = json.loads((folder / INDEX).read_text())
    edit(content["weight_map"])
    (folder / INDEX).write_text(json.dumps(content))


def assert_filled(model: InternVLChat, folder: Path, dtype: torch.dtype) -> None:
    stored = stored_tensors(folder)
    targets = checkpoint_tensors(model)
    assert targets.keys() == stored.keys()
    for name, target in targets.items():
        expected = kept_dtype(stored[name].dtype, dtype) if name == EMBEDDINGS else dtype
        assert target.dtype == expected
        assert torch.equal(target, stored[name].to(expected)), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_fills_every_parameter_in_the_type_asked_for(folder: Path, dtype: torch.dtype) -> None:
    assert_filled(load(folder, dtype), folder, dtype)


@pytest.mark.parametrize(
    ("stored", "hidden", "kept"),
    [
        (torch.bfloat16, torch.float32, torch.bfloat16),
        (torch.float32, torch.bfloat16, torch.bfloat16),
        (torch.bfloat16, torch.float16, torch.float16),
        (torch.float32, torch.float32, torch.float32),
    ],
)
def test_embeddings_stay_as_small_as_they_are(
    folder: Path, stored: torch.dtype, hidden: torch.dtype, kept: torch.dtype
) -> None:
    edit_shard(folder, EMBEDDINGS, lambda t: t.update({EMBEDDINGS: t[EMBEDDINGS].to(stored)}))
    model = load(folder, hidden)
    assert model.language.embed_tokens.dtype == kept
    row = stored_tensors(folder)[EMBEDDINGS][7].to(hidden)
    assert torch.equal(model.embed(torch.tensor([7]))[0], row)


def test_a_single_file_needs_no_index(folder: Path) -> None:
    tensors = stored_tensors(folder)
    for path in [*folder.glob("*.safetensors"), folder / INDEX]:
        path.unlink()
    save_file(tensors, folder / "model.safetensors")
    assert_filled(load(folder), folder, torch.float32)


def test_files_may_be_links_out_of_the_folder(folder: Path) -> None:
    blobs = folder.parent / "blobs"
    blobs.mkdir()
    for path in list(folder.glob("*.safetensors")):
        path.rename(blobs / path.name)
        path.symlink_to(blobs / path.name)
    assert_filled(load(folder), folder, torch.float32)


def test_progress_ends_when_everything_is_read(folder: Path) -> None:
    seen: list[Progress] = []
    load(folder, progress=seen.append)
    done = [progress.done_bytes for progress in seen]
    assert done == sorted(done)
    total = sum(tensor.nbytes for tensor in stored_tensors(folder).values())
    assert done[-1] == seen[-1].total_bytes == total
    assert seen[-1].left_s == 0


def test_progress_foretells_the_end() -> None:
    progress = Progress(done_bytes=2_000, total_bytes=8_000, elapsed_s=4.0)
    assert progress.bytes_s == 500
    assert progress.left_s == 12


def test_pieces_make_the_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.model.reading.PIECE_BYTES", 1000)
    monkeypatch.setattr("server.model.reading.AHEAD_BYTES", 10_000)
    assert_filled(load(folder), folder, torch.float32)


def test_rotary_frequencies_are_ignored(folder: Path) -> None:
    extra = "language_model.model.layers.0.self_attn.rotary_emb.inv_freq"
    file = edit_shard(folder, NORM, lambda tensors: tensors.update({extra: torch.ones(4)}))
    edit_index(folder, lambda weight_map: weight_map.update({extra: file}))
    assert load(folder).embed(torch.tensor([1])).shape == (1, 112)


def test_unused_vision_layers_are_read_past(folder: Path) -> None:
    spec = ModelSpec.load(folder)
    spec = replace(spec, vision=replace(spec.vision, layers_used=1))
    model = load_model(folder, spec, torch.float32, CPU)
    assert len(model.vision.layers) == 1


def test_missing_tensor(folder: Path) -> None:
    edit_shard(folder, NORM, lambda tensors: tensors.pop(NORM))
    edit_index(folder, lambda weight_map: weight_map.pop(NORM))
    with pytest.raises(CheckpointError, match=rf"{NORM}` of shape \[112\] is in none of 3"):
        load(folder)


def test_tensor_that_the_index_promises(folder: Path) -> None:
    file = edit_shard(folder, NORM, lambda tensors: tensors.pop(NORM))
    with pytest.raises(CheckpointError, match=f"{file}: `{NORM}` is missing"):
        load(folder)


def test_tensor_that_the_index_does_not_know(folder: Path) -> None:
    edit_index(folder, lambda weight_map: weight_map.pop(NORM))
    with pytest.raises(CheckpointError, match=f"`{NORM}` is in the file but not in the index"):
        load(folder)


def test_unexpected_tensor(folder: Path) -> None:
    file = edit_shard(folder, NORM, lambda tensors: tensors.update(extra=torch.ones(1)))
    edit_index(folder, lambda weight_map: weight_map.update(extra=file))
    with pytest.raises(CheckpointError, match=f"{file}: `extra` has no place in the model"):
        load(folder)


def test_tensor_stored_twice(folder: Path) -> None:
    other = "vision_model.embeddings.class_embedding"
    edit_shard(folder, other, lambda tensors: tensors.update({NORM: torch.ones(112)}))
    with pytest.raises(CheckpointError, match=f"`{NORM}` is in the file but not in the index"):
        load(folder)


@pytest.mark.parametrize("shape", [(113,), (1, 112), (0,)])
def test_wrong_shape(folder: Path, shape: tuple[int, ...]) -> None:
    file = edit_shard(folder, NORM, lambda tensors: tensors.update({NORM: torch.ones(shape)}))
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    assert str(caught.value) == f"{file}: `{NORM}` has shape {list(shape)}, expected [112]"


@pytest.mark.parametrize(("dtype", "name"), [(torch.int8, "I8"), (torch.float64, "F64")])
def test_unknown_type(folder: Path, dtype: torch.dtype, name: str) -> None:
    edit_shard(folder, NORM, lambda tensors: tensors.update({NORM: torch.ones(112).to(dtype)}))
    with pytest.raises(CheckpointError, match=f"{NORM}` has type {name}, not BF16, F16, F32"):
        load(folder)


@pytest.mark.parametrize("kept_bytes", [0, 4, 100, 300_000])
def test_truncated_file(folder: Path, kept_bytes: int) -> None:
    path = shard_with(folder, NORM)
    path.write_bytes(path.read_bytes()[:kept_bytes])
    with pytest.raises(CheckpointError, match=f"{path.name} cannot be read"):
        load(folder)


def test_missing_file(folder: Path) -> None:
    path = shard_with(folder, NORM)
    path.unlink()
    with pytest.raises(CheckpointError, match=f"{path.name} cannot be read"):
        load(folder)


@pytest.mark.parametrize(
    "file", ["../checkpoint/model-00003-of-00003.safetensors", "/etc/passwd", "..", "", "x.bin", 3]
)
def test_index_that_points_elsewhere(folder: Path, file: str) -> None:
    edit_index(folder, lambda weight_map: weight_map.update({NORM: file}))
    with pytest.raises(CheckpointError, match=r"which is no name of a \.safetensors file"):
        load(folder)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}'])
def test_index_without_content(folder: Path, content: str) -> None:
    (folder / INDEX).write_text(content)
    with pytest.raises(CheckpointError, match=INDEX):
        load(folder)


def as_bin_files(folder: Path) -> None:
    """The same weights in the older form."""
    weight_map = json.loads((folder / INDEX).read_text())["weight_map"]
    for path in folder.glob("*.safetensors"):
        torch.save(load_file(path), folder / f"pytorch_{path.stem}.bin")
        path.unlink()
    (folder / INDEX).unlink()
    names = {name: f"pytorch_{Path(file).stem}.bin" for name, file in weight_map.items()}
    (folder / BIN_INDEX).write_text(json.dumps({"weight_map": names}))


@pytest.mark.filterwarnings("ignore:.*TypedStorage is deprecated")
def test_bin_files_are_read_too(folder: Path) -> None:
    stored = stored_tensors(folder)
    as_bin_files(folder)
    loaded = {name: t.clone() for name, t in checkpoint_tensors(load(folder)).items()}
    assert loaded.keys() == stored.keys()
    assert all(torch.equal(loaded[name], stored[name].float()) for name in stored)


class Malice:
    """What runs code when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return exec, ("raise SystemExit('code of a checkpoint ran')",)


@pytest.mark.parametrize(
    "content", [{"a": Malice()}, Malice(), ["a"], {"a": 1}, {1: torch.ones(1)}]
)
def test_bin_files_hold_tensors_alone(folder: Path, content: object) -> None:
    as_bin_files(folder)
    path = next(folder.glob("*.bin"))
    torch.save(content, path)
    with pytest.raises(
        CheckpointError, match=f"{path.name} (cannot be read as|holds other things)"
    ):
        load(folder)


def test_a_bin_file_that_is_cut_off(folder: Path) -> None:
    as_bin_files(folder)
    path = next(folder.glob("*.bin"))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=f"{path.name} cannot be read"):
        load(folder)


def test_a_file_that_shrinks_while_it_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.preadv", lambda *_: 0)
    with pytest.raises(
        CheckpointError, match=r"class_embedding` cannot be read: .* ends too early"
    ):
        load(folder)


def test_folder_without_weights(folder: Path) -> None:
    for path in [*folder.glob("*.safetensors"), folder / INDEX]:
        path.unlink()
    with pytest.raises(CheckpointError, match="holds neither"):
        load(folder)


def test_nothing_is_allocated_before_the_headers_are_checked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit_shard(folder, NORM, lambda tensors: tensors.update({NORM: torch.ones(113)}))
    allocated: list[int] = []
    empty = torch.empty

    def spy(shape: tuple[int, ...], **options: object) -> Tensor:
        allocated.append(options["device"] != torch.device("meta"))
        return empty(shape, **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(torch, "empty", spy)
    with pytest.raises(CheckpointError):
        load(folder)
    assert allocated
    assert not any(allocated)
