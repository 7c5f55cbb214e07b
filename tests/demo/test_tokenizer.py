from __future__ import annotations

import pytest

from server.demo.tokenizer import SPELLED_IN_BYTES
from server.frontend.tokenizer import Tokenizer
from server.model.spec import ModelSpec

Small = tuple[ModelSpec, Tokenizer]


@pytest.mark.parametrize("text", ["4821", "LEMON", "JSON", "ZQX", "ION"])
def test_words_and_numbers_are_spelled(small: Small, text: str) -> None:
    assert len(small[1].encode_text(text)) == len(text)


@pytest.mark.parametrize("text", ["user", "assistant", "Answer", " the", " questions"])
def test_the_template_is_short(small: Small, text: str) -> None:
    assert len(small[1].encode_text(text)) == 1


@pytest.mark.parametrize("character", SPELLED_IN_BYTES)
def test_some_characters_are_bytes(small: Small, character: str) -> None:
    assert len(small[1].encode_text(character)) == 3


@pytest.mark.parametrize("text", ["naïve", "图中有几个紫色的形状？", "a\nb  c\t", '{"x": 1}', "🙂"])
def test_any_text_comes_back(small: Small, text: str) -> None:
    tokenizer = small[1]
    ids = tokenizer.encode_text(text)
    assert b"".join(map(tokenizer.token_bytes, ids)).decode() == text


def test_the_vocabulary_is_the_config_s(small: Small) -> None:
    spec, tokenizer = small
    assert tokenizer.vocab_size == spec.text.vocab_size
