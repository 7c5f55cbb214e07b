from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from server.api.prepare import Prepared, Preparer
from server.api.schemas import ChatRequest
from server.errors import ApiError
from server.frontend.grammar_check import GrammarChecker
from server.frontend.images import image_digest
from server.frontend.tokenizer import Tokenizer
from server.model.spec import ModelSpec
from server.settings import Settings
from tests.api.harness import chat, picture_part
from tests.frontend.bombs import png_of_chunks
from tests.golden import CHECKPOINT, case
from tests.videos import counted, encode, video_part

SPEC = ModelSpec.load(CHECKPOINT)


def make(settings: Settings, tokenizer: Tokenizer) -> Preparer:
    checker = GrammarChecker(CHECKPOINT, settings.grammar_timeout_s)
    return Preparer(settings, SPEC, tokenizer, checker)


@pytest.fixture(scope="module")
def preparer(tokenizer: Tokenizer) -> Iterator[Preparer]:
    preparer = make(Settings(), tokenizer)
    yield preparer
    preparer.close()


def prepare(preparer: Preparer, content: Any, max_model_len: int = 4096, **fields: Any) -> Prepared:
    request = ChatRequest.model_validate(chat(content, **fields))
    return asyncio.run(preparer.prepare(request, max_model_len))


def rejection(preparer: Preparer, content: Any, **options: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        prepare(preparer, content, **options)
    assert caught.value.status == 400
    return caught.value


def test_prompt_of_the_authors_text_case(preparer: Preparer) -> None:
    golden = case("text_en")
    prepared = prepare(preparer, golden["question"])
    assert prepared.prompt.token_ids == golden["token_ids"]
    (submit,) = prepared.submits
    assert (
        list(struct.unpack(f"<{len(golden['token_ids'])}i", submit.prompt)) == golden["token_ids"]
    )
    assert submit.images == []
    assert prepared.pictures == []


def test_pictures_are_loaded_in_order_and_named_by_digest(preparer: Preparer) -> None:
    names = ["rgb_square.png", "gray.png", "rgb_square.png"]
    content = [{"type": "text", "text": "What?"}, *map(picture_part, names)]
    prepared = prepare(preparer, content, n=2)
    side = SPEC.vision.image_size
    assert [len(pixels) for pixels in prepared.pictures] == [side * side * 3] * 3
    assert prepared.pictures[0] == prepared.pictures[2] != prepared.pictures[1]
    for submit in prepared.submits:
        assert [ref.digest for ref in submit.images] == list(map(image_digest, prepared.pictures))
        assert [(ref.offset, ref.length) for ref in submit.images] == list(prepared.prompt.images)


def test_layout_of_several_pictures(preparer: Preparer) -> None:
    content = [picture_part(), picture_part("gray.png"), {"type": "text", "text": "Compare."}]
    separate = prepare(preparer, content).prompt
    combined = prepare(preparer, content, mm_processor_kwargs={"image_layout": "combined"}).prompt
    length = SPEC.tokens_per_image
    assert combined.images[1][0] - combined.images[0][0] == length
    assert separate.images[1][0] - separate.images[0][0] > length


def test_a_long_text_is_tokenised_like_a_short_one(
    preparer: Preparer, tokenizer: Tokenizer
) -> None:
    text = "word " * 3000
    ids = prepare(preparer, text, max_model_len=10_000).prompt.token_ids
    start = len(tokenizer.encode_trusted("<|im_start|>system\nAnswer the questions.<|im_end|>"))
    assert ids[start:] == tokenizer.encode_trusted(
        f"<|im_start|>user\n{text}<|im_end|><|im_start|>assistant\n"
    )


def test_stop_ids(preparer: Preparer, tokenizer: Tokenizer) -> None:
    own = list(tokenizer.stop_ids)
    assert prepare(preparer, "Hi").submits[0].stop_ids == own
    assert prepare(preparer, "Hi", stop_token_ids=[5]).submits[0].stop_ids == [*own, 5]
    assert prepare(preparer, "Hi", ignore_eos=True).submits[0].stop_ids == []
    assert prepare(preparer, "Hi", ignore_eos=True, stop_token_ids=[5]).submits[0].stop_ids == [5]


@pytest.mark.parametrize("token_id", [-1, SPEC.text.vocab_size])
def test_a_stop_id_that_does_not_exist(preparer: Preparer, token_id: int) -> None:
    error = rejection(preparer, "Hi", stop_token_ids=[0, token_id])
    assert error.param == "stop_token_ids[1]"
    assert str(SPEC.text.vocab_size - 1) in error.message


def test_longest_answer(preparer: Preparer) -> None:
    prompt_tokens = len(prepare(preparer, "Hi").prompt.token_ids)
    limit = prompt_tokens + 10

    def max_tokens(**fields: Any) -> int:
        return prepare(preparer, "Hi", max_model_len=limit, **fields).submits[0].max_tokens

    assert max_tokens() == 10
    assert max_tokens(max_tokens=3) == 3
    assert max_tokens(max_tokens=3, max_completion_tokens=10) == 10


def test_an_answer_that_does_not_fit(preparer: Preparer) -> None:
    prompt_tokens = len(prepare(preparer, "Hi").prompt.token_ids)
    error = rejection(preparer, "Hi", max_model_len=prompt_tokens + 10, max_tokens=11)
    assert error.code == "context_length_exceeded"
    assert error.message == (
        f"This model's maximum context length is {prompt_tokens + 10} tokens. However, you "
        f"requested {prompt_tokens + 11} tokens ({prompt_tokens} in the messages, 11 in the "
        "completion). Please reduce the length of either."
    )


def test_a_prompt_that_leaves_no_room(preparer: Preparer) -> None:
    prompt_tokens = len(prepare(preparer, "Hi").prompt.token_ids)
    error = rejection(preparer, "Hi", max_model_len=prompt_tokens)
    assert error.code == "context_length_exceeded"
    assert f"your messages resulted in {prompt_tokens} tokens" in error.message


def test_what_cannot_fit_is_refused_before_any_work(preparer: Preparer) -> None:
    """Neither the text nor the pictures would survive a look: they are no base64."""
    pictures = [{"type": "image_url", "image_url": "data:image/png;base64,!"}] * 100
    error = rejection(preparer, [*pictures, {"type": "text", "text": "x"}], max_model_len=100)
    assert error.code == "context_length_exceeded"
    assert "100 pictures" in error.message
    assert rejection(preparer, "x" * 10_000_000).code == "context_length_exceeded"


def test_the_first_bad_picture_is_the_one_that_is_named(preparer: Preparer) -> None:
    content = [
        picture_part(),
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "input_image", "image_url": "https://example.com/a.png"},
    ]
    error = rejection(preparer, content)
    assert error.param == "messages[0].content[1].image_url.url"
    assert error.code == "invalid_image_format"
    error = rejection(preparer, content[2:])
    assert (error.param, error.code) == ("messages[0].content[0].image_url", "invalid_image_url")


def test_limits_of_pictures_come_from_the_settings(tokenizer: Tokenizer) -> None:
    bomb = base64.b64encode(png_of_chunks(100_000)).decode()
    parts = [picture_part(), {"type": "image_url", "image_url": {"url": bomb}}]
    for limit, value, code, index in (
        ("max_image_bytes", 99, "image_file_too_large", 0),
        ("max_image_pixels", 10, "image_too_large", 0),
        ("max_request_image_pixels", 4095, "image_too_large", 0),
        ("image_timeout_s", 0.05, "invalid_image", 1),
        ("max_images", 1, "array_above_max_length", None),
    ):
        preparer = make(Settings.model_validate({limit: value}), tokenizer)
        try:
            error = rejection(preparer, parts)
            path = "" if index is None else f"[0].content[{index}].image_url.url"
            assert (error.code, error.param) == (code, f"messages{path}")
            assert str(value) in error.message
        finally:
            preparer.close()


def test_limits_of_videos_come_from_the_settings(tokenizer: Tokenizer) -> None:
    part = video_part(encode(counted(9)))
    for limit, value, code in (
        ("max_video_bytes", 99, "video_file_too_large"),
        ("max_image_pixels", 99, "video_too_large"),
        ("video_timeout_s", 0.001, "invalid_video"),
    ):
        preparer = make(Settings.model_validate({limit: value}), tokenizer)
        try:
            error = rejection(preparer, [part])
            assert (error.code, error.param) == (code, "messages[0].content[0].video_url.url")
            assert str(value) in error.message
        finally:
            preparer.close()


@pytest.mark.parametrize(
    ("limit", "code", "arguments"),
    [
        ("max_text_chars", "string_above_max_length", '"' + "a" * 50 + '"'),
        ("max_json_values", "invalid_json", "[" + "0," * 50 + "0]"),
    ],
)
def test_arguments_of_calls_are_bounded_before_they_are_decoded(
    tokenizer: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
    code: str,
    arguments: str,
) -> None:
    decoded: list[str] = []
    monkeypatch.setattr(json, "loads", decoded.append)
    call = {"name": "f", "arguments": arguments}
    messages = [
        {"role": "assistant", "tool_calls": [{"function": call}]},
        {"role": "assistant", "function_call": call},
    ]
    preparer = make(Settings.model_validate({limit: 100}), tokenizer)
    try:
        for fields in ({}, {"tools": [{"type": "function", "function": {"name": "f"}}]}):
            error = rejection(preparer, "", messages=messages, **fields)
            assert (error.code, error.param) == (code, "messages")
            assert "100" in error.message
    finally:
        preparer.close()
    assert decoded == []


def test_sampling_defaults_of_the_checkpoint(tokenizer: Tokenizer) -> None:
    preparer = Preparer(
        Settings(generation_defaults="model"), SPEC, tokenizer, GrammarChecker(CHECKPOINT, 20)
    )
    try:
        assert prepare(preparer, "Hi").submits[0].sampling.top_k == SPEC.generation.top_k
    finally:
        preparer.close()
