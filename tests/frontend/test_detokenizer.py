from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from server.frontend.detokenizer import Detokenizer
from tests.frontend.support import CONTROLS, cut, decode, golden_pieces, golden_tokenizer
from tests.golden import CONVERSATIONS, case

ANSWERS = [*map(case, CONVERSATIONS), *case("batch3")["samples"]]
SPECIAL = frozenset(case("prompts")["special_token_ids"].values())

BYTE_IDS = golden_pieces().piece_to_id([f"<0x{byte:02X}>" for byte in range(256)])
utf8_bytes = st.sampled_from(
    [BYTE_IDS[byte] for byte in "aé▁🐼".encode() + b"\x80\xc0\xed\xf5\xff"]
)
token_ids = st.lists(st.one_of(st.integers(0, 1023), utf8_bytes, utf8_bytes), max_size=40)


def authors_decode(ids: Sequence[int]) -> str:
    """`LlamaTokenizer.decode(ids, skip_special_tokens=True)` of transformers 4.37.2."""
    pieces = golden_pieces()
    names = [pieces.id_to_piece(token_id) for token_id in ids if token_id not in SPECIAL]
    if names and names[0].startswith("▁"):
        names[0] = names[0][1:]
    text: str = pieces.decode(names)
    return text


def stream(ids: Sequence[int], sizes: Sequence[int], stops: Sequence[str] = ()) -> Detokenized:
    detokenizer = Detokenizer(golden_tokenizer(), stops)
    text, start = "", 0
    for size in [*sizes, len(ids)]:
        text += detokenizer.push(ids[start : start + size])
        start += size
    return text + detokenizer.finish(), detokenizer.stopped


Detokenized = tuple[str, str | None]


@pytest.mark.parametrize("golden", ANSWERS, ids=lambda golden: repr(golden["question"][:20]))
def test_answers_are_those_of_the_authors(golden: dict[str, str]) -> None:
    ids = [int(token_id) for token_id in golden["generated_ids"]]

    text, _ = stream(ids, [1] * len(ids))

    assert text == golden["decoded_skip_special"]
    assert text.strip() == golden["response"]


@pytest.mark.parametrize("name", ["text_eos", "text_zh_emoji", "image_single"])
def test_the_authors_stream_has_the_same_text(name: str) -> None:
    golden = case(name)

    assert stream(golden["generated_ids"], [])[0] == "".join(golden["stream_chunks"])


@settings(derandomize=True, max_examples=500, deadline=None)
@given(token_ids)
@example([BYTE_IDS[0xE2], BYTE_IDS[0x96], 7, BYTE_IDS[0x81]])
@example([BYTE_IDS[0xF0], BYTE_IDS[0x9F], BYTE_IDS[0x90], 908])
@example([BYTE_IDS[0x20], 908])
def test_any_ids_decode_as_the_authors_decode_them(ids: list[int]) -> None:
    assert stream(ids, [])[0] == authors_decode(ids)
    plain = [token_id for token_id in ids if token_id not in SPECIAL]
    assert decode(golden_tokenizer(), ids) == golden_pieces().decode(plain)


@settings(derandomize=True, max_examples=500, deadline=None)
@given(
    token_ids,
    st.lists(st.integers(0, 5), max_size=20),
    st.lists(st.text("ae ▁é🐼\ufffd", min_size=1, max_size=3), max_size=3),
)
def test_any_pushes_give_the_whole_text_cut_at_the_first_stop(
    ids: list[int], sizes: list[int], stops: list[str]
) -> None:
    assert stream(ids, sizes, stops) == stream(ids, [], stops) == cut(authors_decode(ids), stops)


def test_a_character_is_released_with_its_last_byte() -> None:
    detokenizer = Detokenizer(golden_tokenizer())
    panda = [BYTE_IDS[byte] for byte in "🐼".encode()]

    assert [detokenizer.push([token_id]) for token_id in panda] == ["", "", "", "🐼"]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\xf0\x9f\x90", "\ufffd\ufffd\ufffd"),
        (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),
        (b"\xc0\xaf", "\ufffd\ufffd"),
        (b"\xe2\x96a", "\ufffd\ufffda"),
        (b"\xef\xbf\xbd", "\ufffd"),
    ],
)
def test_each_byte_of_no_character_is_one_replacement(data: bytes, text: str) -> None:
    ids = [BYTE_IDS[byte] for byte in data]

    assert decode(golden_tokenizer(), ids) == text == golden_pieces().decode(ids)


def test_one_leading_space_goes_only_where_the_answer_is_new() -> None:
    space_t = golden_tokenizer().encode_text(" the")

    assert stream([6, *space_t], [])[0] == "the"
    assert stream([*golden_tokenizer().encode_text("  the")], [])[0] == " the"
    assert decode(golden_tokenizer(), space_t) == " the"


def test_special_tokens_can_be_kept() -> None:
    detokenizer = Detokenizer(golden_tokenizer(), ["<|im_end|>"], skip_special_tokens=False)
    ids = [CONTROLS["<ref>"], *golden_tokenizer().encode_text("a cat"), CONTROLS["</ref>"]]

    assert detokenizer.push(ids) + detokenizer.push([7]) == "<ref>a cat</ref>"
    assert detokenizer.stopped == "<|im_end|>"


def test_a_token_ends_behind_its_text_and_inside_an_unfinished_character() -> None:
    tokenizer = golden_tokenizer()
    detokenizer = Detokenizer(tokenizer, ["é!"])
    ids = [*tokenizer.encode_text("a"), *tokenizer.encode_text("🎉")[-4:]]
    reached = []
    for token_id in ids:
        detokenizer.push([token_id])
        reached.append(detokenizer.reached)
    assert reached == [1, 2, 2, 2, 2]
    assert detokenizer.released == 2
