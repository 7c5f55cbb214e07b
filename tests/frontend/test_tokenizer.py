from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings

from server.errors import ApiError, CheckpointError
from server.frontend.tokenizer import Tokenizer
from tests.frontend.support import (
    CONTROLS,
    decode,
    golden_pieces,
    golden_tokenizer,
    texts,
    train_model,
)
from tests.golden import CONVERSATIONS, case

PROMPTS = [*case("prompts")["cases"], *map(case, CONVERSATIONS), *case("batch3")["samples"]]


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: repr(prompt["question"][:20]))
def test_trusted_text_gets_the_ids_of_the_authors_tokenizer(prompt: dict[str, Any]) -> None:
    assert golden_tokenizer().encode_trusted(prompt["prompt"]) == prompt["token_ids"]


@settings(derandomize=True, max_examples=300, deadline=None)
@given(texts)
@example("<|im_end|>")
@example("<<|im_<|im_end|>end|>>")
@example("<|im_end|><img></img><IMG_CONTEXT>")
@example("▁<|im_end|>▁")
@example("".join(CONTROLS) * 3)
def test_no_control_token_comes_out_of_text_and_its_bytes_survive(text: str) -> None:
    tokenizer = golden_tokenizer()

    ids = tokenizer.encode_text(text)

    assert not set(ids) & set(CONTROLS.values())
    assert decode(tokenizer, ids) == text
    assert golden_pieces().decode(ids) == text


@settings(derandomize=True, max_examples=300, deadline=None)
@given(texts)
@example("<image> <b>bold</b> <0x41> </s> a<b>c")
@example("  leading\u00a0and\u3000trailing  \r\n\t\0")
def test_text_without_control_symbols_gets_the_reference_ids(text: str) -> None:
    for symbol in ("▁", *CONTROLS):
        text = text.replace(symbol, "")
    if any(symbol in text for symbol in CONTROLS):
        return  # removing one symbol can put together another
    assert golden_tokenizer().encode_text(text) == golden_tokenizer().encode_trusted(text)


def test_the_space_symbol_of_sentencepiece_is_not_turned_into_a_space() -> None:
    tokenizer = golden_tokenizer()

    assert [tokenizer.token_bytes(i) for i in tokenizer.encode_text("▁")] == [
        b"\xe2",
        b"\x96",
        b"\x81",
    ]
    assert tokenizer.encode_text(" ") == [tokenizer.encode_trusted("▁")[0]]


@pytest.mark.parametrize("encode", [Tokenizer.encode_text, Tokenizer.encode_trusted])
def test_a_lone_surrogate_is_the_callers_mistake(
    encode: Callable[[Tokenizer, str], list[int]],
) -> None:
    with pytest.raises(ApiError, match="surrogate") as caught:
        encode(golden_tokenizer(), "a\ud800b")

    assert caught.value.status == 400


@pytest.mark.parametrize(
    "pattern", ["<", "<|im_end", "<|im_end|>", "▁", "a▁", " ", "<img><img", "🐼", "The red panda "]
)
def test_hostile_repetition_costs_no_more_than_its_length(pattern: str) -> None:
    text = pattern * (200_000 // len(pattern))

    start = time.perf_counter()
    ids = golden_tokenizer().encode_text(text)
    seconds = time.perf_counter() - start

    assert decode(golden_tokenizer(), ids) == text
    assert seconds < 5, "a quadratic cost would take minutes"


def test_names_bytes_and_stop_tokens() -> None:
    tokenizer = golden_tokenizer()

    assert tokenizer.vocab_size == 1024
    assert tokenizer.stop_ids == (7, 2, 6, 8)
    assert [tokenizer.control_id(name) for name in CONTROLS] == list(CONTROLS.values())
    assert tokenizer.token_name(7) == "<|im_end|>"
    assert tokenizer.token_bytes(7) == b""
    assert tokenizer.token_bytes(7, keep_special=True) == b"<|im_end|>"
    assert tokenizer.token_bytes(5) == b"<|System|>"
    assert tokenizer.is_special(7)
    assert not tokenizer.is_special(5)


@pytest.mark.parametrize("token_id", [-1, 1024, 10**9])
def test_ids_outside_the_vocabulary_are_nothing(token_id: int) -> None:
    tokenizer = golden_tokenizer()

    assert tokenizer.token_name(token_id) == ""
    assert tokenizer.token_bytes(token_id, keep_special=True) == b""
    assert not tokenizer.is_special(token_id)


def test_stop_tokens_are_those_that_exist(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(train_model(tmp_path, tags=["<|im_end|>", "<|im_sep|>"]))

    assert [tokenizer.token_name(i) for i in tokenizer.stop_ids] == ["<|im_end|>", "<|im_sep|>"]
    with pytest.raises(CheckpointError, match=r"<\|im_start\|>"):
        tokenizer.control_id("<|im_start|>")


def test_a_checkpoint_without_an_end_of_message_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"<\|im_end\|>"):
        Tokenizer.load(train_model(tmp_path, tags=[]))


@pytest.mark.parametrize("content", [None, b"", b"not a model"])
def test_a_folder_without_a_sentencepiece_model_is_refused(
    tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "tokenizer.model").write_bytes(content)

    with pytest.raises(CheckpointError, match=r"tokenizer\.model"):
        Tokenizer.load(tmp_path)


def test_a_model_that_puts_a_space_in_front_does_so_once(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(train_model(tmp_path, add_dummy_prefix=True))
    assert tokenizer.puts_space_in_front
    end = tokenizer.control_id("<|im_end|>")
    plain = tokenizer.encode_text("the cat")

    assert tokenizer.token_name(plain[0]).startswith("▁")
    assert tokenizer.encode_text("the▁cat<|im_end|>")[: len(plain)] != plain
    assert decode(tokenizer, tokenizer.encode_text("the▁cat<|im_end|>")) == " the▁cat<|im_end|>"
    assert tokenizer.encode_trusted("the cat<|im_end|>the cat").count(end) == 1
    assert decode(tokenizer, plain) == " the cat"


def test_a_model_that_normalises_cannot_be_tricked_either(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(train_model(tmp_path, normalization_rule_name="nfkc"))
    disguised = "＜|im_end|＞"
    assert tokenizer.control_id("<|im_end|>") in tokenizer.encode_trusted(disguised)

    ids = tokenizer.encode_text(disguised)

    assert tokenizer.control_id("<|im_end|>") not in ids
    assert decode(tokenizer, ids) == disguised
