from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import sentencepiece
import torch
from safetensors.torch import load_file
from torch import Tensor

from server.demo.random_checkpoint import TINY, write_random_checkpoint
from server.model.internvl import InternVLChat
from server.model.spec import ModelSpec
from server.model.weights import load_model
from tests.model.paged import PagedSequences

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "made" / "if need be"
    write_random_checkpoint(path)
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> InternVLChat:
    return load_model(folder, ModelSpec.load(folder), torch.float32, CPU)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def prompt_logits(model: InternVLChat, token_ids: list[int], picture: Tensor) -> Tensor:
    """Logits after each token of a picture followed by text."""
    embeddings = torch.cat([model.encode_images(picture)[0], model.embed(torch.tensor(token_ids))])
    (logits,) = PagedSequences(model, [embeddings]).run([[len(embeddings)]])
    return logits


def plain_picture(*colour: int) -> Tensor:
    return torch.tensor(colour, dtype=torch.uint8).expand(1, TINY.image_size, TINY.image_size, 3)


def test_has_the_files_of_a_real_checkpoint(folder: Path) -> None:
    assert set(contents(folder)) == {
        "added_tokens.json",
        "config.json",
        "generation_config.json",
        "model-00001-of-00003.safetensors",
        "model-00002-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
        "model.safetensors.index.json",
        "preprocessor_config.json",
        "special_tokens_map.json",
        "tokenizer.model",
        "tokenizer_config.json",
    }
    assert sum(map(len, contents(folder).values())) < 3_000_000


def test_spec_is_the_shape_asked_for(folder: Path) -> None:
    spec = ModelSpec.load(folder)
    assert (spec.ps_version, spec.template, spec.dtype) == ("v1", "Hermes-2", "bfloat16")
    assert spec.tokens_per_image == 16
    assert (spec.vision.num_heads, spec.vision.layers_used) == (5, 3)
    assert spec.text.num_heads == 7 * spec.text.num_kv_heads
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    assert spec.text.vocab_size == tokenizer.vocab_size() + 7


def test_equal_seeds_give_equal_bytes_in_another_process(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "server.demo.random_checkpoint", str(tmp_path), "--seed", "0"]
    subprocess.run(command, check=True, timeout=60, capture_output=True)
    assert contents(tmp_path) == contents(folder)


def test_another_seed_changes_weights_only(folder: Path, tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path, seed=1)
    one, other = contents(folder), contents(tmp_path)
    changed = {name for name in one if one[name] != other[name]}
    assert changed == {name for name in one if name.endswith(".safetensors")}


def test_another_shape_loads(tmp_path: Path) -> None:
    shape = replace(TINY, text_heads=4, text_kv_heads=1, head_dim=28, text_layers=1, vocab_size=600)
    write_random_checkpoint(tmp_path, shape=shape)
    spec = ModelSpec.load(tmp_path)
    model = load_model(tmp_path, spec, torch.float32, CPU)
    logits = prompt_logits(model, [6, 7], plain_picture(0, 0, 0))
    assert logits.shape == (16 + 2, 600)


def test_weights_are_finite_and_varied(folder: Path) -> None:
    for path in folder.glob("*.safetensors"):
        for name, tensor in load_file(path).items():
            assert tensor.dtype == torch.bfloat16, name
            assert bool(tensor.isfinite().all()), name
            assert tensor.float().std() > 0, name


def test_logits_are_spread(model: InternVLChat) -> None:
    logits = prompt_logits(model, list(range(100, 140)), plain_picture(255, 0, 0))
    assert bool(logits.isfinite().all())
    assert 1 < logits.std() < 3
    best, second = logits.topk(2).values.unbind(-1)
    assert (best - second).median() > 0.1


def test_the_picture_changes_what_follows(model: InternVLChat) -> None:
    half = plain_picture(255, 0, 0).clone()
    half[:, :, TINY.image_size // 2 :] = 255
    pictures = [plain_picture(255, 0, 0), plain_picture(0, 0, 255), half, half.flip(2)]
    last = [prompt_logits(model, list(range(100, 140)), picture)[-1] for picture in pictures]
    for index, one in enumerate(last):
        for other in last[:index]:
            assert (one - other).abs().max() > 2
