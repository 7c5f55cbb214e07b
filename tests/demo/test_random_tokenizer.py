from __future__ import annotations

import json

import pytest
import sentencepiece

from server.demo.random_tokenizer import tokenizer_files, train_tokenizer
from tests.golden import CHECKPOINT

VOCAB_SIZE = 1024


@pytest.fixture(scope="module")
def tokenizer() -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_proto=train_tokenizer(VOCAB_SIZE))


def test_control_tokens_have_the_golden_ids(
    tokenizer: sentencepiece.SentencePieceProcessor,
) -> None:
    path = str(CHECKPOINT / "tokenizer.model")
    golden = sentencepiece.SentencePieceProcessor(model_file=path)
    ids = range(14 + 256)
    assert tokenizer.vocab_size() == golden.vocab_size() == VOCAB_SIZE - 7
    assert [tokenizer.id_to_piece(i) for i in ids] == [golden.id_to_piece(i) for i in ids]


@pytest.mark.parametrize("name", list(tokenizer_files(VOCAB_SIZE, 4096)))
def test_files_equal_those_of_the_golden_tokenizer(name: str) -> None:
    content = json.loads(json.dumps(tokenizer_files(VOCAB_SIZE, 4096)[name]))
    assert content == json.loads((CHECKPOINT / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "text", ["", " ", "a", " a  b ", "你好，世界", "x\ny\t\n\n", "ﬁ Å é", "\U0001f600", "1234"]
)
def test_text_survives_unchanged(
    tokenizer: sentencepiece.SentencePieceProcessor, text: str
) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_no_space_is_added_in_front(tokenizer: sentencepiece.SentencePieceProcessor) -> None:
    assert not tokenizer.encode("user", out_type=str)[0].startswith("▁")


def test_digits_stand_alone(tokenizer: sentencepiece.SentencePieceProcessor) -> None:
    assert tokenizer.encode("1234", out_type=str) == ["1", "2", "3", "4"]


def test_unknown_characters_become_bytes(tokenizer: sentencepiece.SentencePieceProcessor) -> None:
    assert tokenizer.encode("é", out_type=str) == ["<0xC3>", "<0xA9>"]


def test_the_sentences_are_learned_before_made_up_words(
    tokenizer: sentencepiece.SentencePieceProcessor,
) -> None:
    assert tokenizer.encode(" children", out_type=str) == ["▁children"]
    assert len(tokenizer.encode("请写一首关于大海和高山的诗。")) < 8


def test_large_vocabularies_are_filled() -> None:
    tokenizer = sentencepiece.SentencePieceProcessor(model_proto=train_tokenizer(8000))
    pieces = {tokenizer.id_to_piece(index) for index in range(tokenizer.vocab_size())}
    assert len(pieces) == 8000 - 7
