from __future__ import annotations

from pathlib import Path

import pytest
from sentencepiece import SentencePieceProcessor

from server.errors import CheckpointError
from server.frontend.added_tokens import AddedToken, read_added_tokens
from server.frontend.vocabulary import Vocabulary, read_vocabulary
from tests.frontend.support import CONTROLS, golden_pieces, train_model
from tests.golden import CHECKPOINT, case


def golden_vocabulary() -> Vocabulary:
    return read_vocabulary(golden_pieces(), read_added_tokens(CHECKPOINT, golden_pieces()))


def test_controls_are_added_tokens_control_pieces_and_user_defined_tags() -> None:
    vocabulary = golden_vocabulary()

    assert vocabulary.controls == CONTROLS
    assert vocabulary.special_ids == frozenset(case("prompts")["special_token_ids"].values())


def test_every_token_gives_what_sentencepiece_gives() -> None:
    pieces, vocabulary = golden_pieces(), golden_vocabulary()

    for token_id in range(pieces.vocab_size()):
        if token_id not in vocabulary.special_ids and not pieces.is_byte(token_id):
            assert vocabulary.data[token_id].decode() == pieces.decode([token_id])
    assert [vocabulary.data[i] for i in vocabulary.byte_ids] == [bytes([b]) for b in range(256)]
    assert vocabulary.names[1017] == "<IMG_CONTEXT>"
    assert vocabulary.data[1017] == b"<IMG_CONTEXT>"


def test_ordinary_tags_and_untagged_user_defined_pieces_are_no_controls(tmp_path: Path) -> None:
    train_model(
        tmp_path,
        tags=["<|im_end|>", "[TAG]"],
        sentence_iterator=iter(["vector<int> <int> the<int>"] * 50),
        vocab_size=285,
        split_by_unicode_script=False,
    )
    pieces = SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    assert "<int>" in pieces.encode("<int>", out_type=str)

    vocabulary = read_vocabulary(pieces, {})

    assert set(vocabulary.controls) == {"<unk>", "<s>", "</s>", "<|im_end|>"}


def test_ids_between_added_tokens_have_no_name() -> None:
    vocabulary = read_vocabulary(golden_pieces(), {"<far>": AddedToken(1020, False)})

    assert vocabulary.names[1016:] == [golden_pieces().id_to_piece(1016), "", "", "", "<far>"]
    assert vocabulary.data[1018] == b""
    assert vocabulary.controls["<far>"] == 1020
    assert 1020 not in vocabulary.special_ids


def test_a_model_without_byte_pieces_is_refused(tmp_path: Path) -> None:
    train_model(tmp_path, byte_fallback=False, vocab_size=40)
    pieces = SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))

    with pytest.raises(CheckpointError, match="no byte pieces"):
        read_vocabulary(pieces, {})
