from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from server.errors import CheckpointError
from server.frontend.added_tokens import AddedToken, read_added_tokens
from tests.frontend.support import golden_pieces
from tests.golden import CHECKPOINT, case

FILES = ("tokenizer_config.json", "added_tokens.json", "special_tokens_map.json")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in FILES:
        shutil.copy(CHECKPOINT / name, tmp_path)
    return tmp_path


def edit(path: Path, **changes: Any) -> None:
    value = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in value.items() if v is not None}))


def test_tokens_of_the_golden_checkpoint() -> None:
    tokens = read_added_tokens(CHECKPOINT, golden_pieces())

    expected = case("prompts")["special_token_ids"]
    assert tokens == {name: AddedToken(token_id, True) for name, token_id in expected.items()}


def test_older_files_give_the_same_tokens(folder: Path) -> None:
    newer = read_added_tokens(folder, golden_pieces())

    edit(folder / "tokenizer_config.json", added_tokens_decoder=None)
    assert read_added_tokens(folder, golden_pieces()) == newer

    (folder / "tokenizer_config.json").unlink()
    assert read_added_tokens(folder, golden_pieces()) == newer


def test_an_added_token_need_not_be_special(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()
    edit(folder / "added_tokens.json", **{"<plain>": 1024})

    assert read_added_tokens(folder, golden_pieces())["<plain>"] == AddedToken(1024, False)


def test_a_folder_without_files_adds_nothing(tmp_path: Path) -> None:
    assert read_added_tokens(tmp_path, golden_pieces()) == {}


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("added_tokens.json", {"<img2>": "12"}, "`<img2>` has no id"),
        ("special_tokens_map.json", {"eos_token": "<eos>"}, "`<eos>` has no id"),
    ],
)
def test_a_token_without_an_id_is_an_error(
    folder: Path, file: str, changes: dict[str, Any], message: str
) -> None:
    (folder / "tokenizer_config.json").unlink()
    edit(folder / file, **changes)

    with pytest.raises(CheckpointError, match=message):
        read_added_tokens(folder, golden_pieces())


@pytest.mark.parametrize("flag", ["lstrip", "rstrip", "single_word"])
def test_tokens_that_eat_their_neighbours_are_refused(folder: Path, flag: str) -> None:
    edit(
        folder / "tokenizer_config.json",
        added_tokens_decoder={"7": {"content": "<|im_end|>", "special": True, flag: True}},
    )

    with pytest.raises(CheckpointError, match=r"<\|im_end\|>.* uses lstrip"):
        read_added_tokens(folder, golden_pieces())


@pytest.mark.parametrize("decoder", [[], {"seven": {"content": "a"}}, {"7": {}}, {"7": "a"}])
def test_a_damaged_list_is_an_error(folder: Path, decoder: Any) -> None:
    edit(folder / "tokenizer_config.json", added_tokens_decoder=decoder)

    with pytest.raises(CheckpointError, match="added_tokens_decoder"):
        read_added_tokens(folder, golden_pieces())


@pytest.mark.parametrize("content", ["{", "[]", "\xff"])
def test_a_damaged_file_is_an_error(folder: Path, content: str) -> None:
    (folder / "tokenizer_config.json").write_text(content, encoding="latin-1")

    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json"):
        read_added_tokens(folder, golden_pieces())
