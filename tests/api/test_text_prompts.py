from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from server.api.completion_request import CompletionRequest
from server.api.engine_request import EngineRequests
from server.api.text_prompts import COUNTED_MAX, INLINE_CHARS_MAX, TextPrompts
from server.errors import ApiError
from server.frontend.tokenizer import Tokenizer
from server.model.spec import ModelSpec
from server.settings import Settings
from tests.golden import CHECKPOINT

SPEC = ModelSpec.load(CHECKPOINT)
TOKEN_CHARS_MAX = 16


@pytest.fixture(scope="module")
def prompts(tokenizer: Tokenizer) -> Iterator[TextPrompts]:
    requests = EngineRequests(Settings(), SPEC, tokenizer)
    with ThreadPoolExecutor(1) as thread:
        yield TextPrompts(tokenizer, requests, thread, TOKEN_CHARS_MAX)


@pytest.mark.parametrize("text", ["", "Hi", "Hi " * INLINE_CHARS_MAX])
def test_texts_of_any_length_are_tokenised_alike(
    prompts: TextPrompts, tokenizer: Tokenizer, text: str
) -> None:
    assert asyncio.run(prompts.encode(text, "prompt")) == tokenizer.encode_text(text)


def test_many_texts_leave_others_their_turn(prompts: TextPrompts) -> None:
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def main() -> None:
        counting = asyncio.create_task(count_turns())
        for _ in range(20):
            await prompts.encode("Hi", "prompt")
        counting.cancel()

    asyncio.run(main())
    assert turns >= 20


def test_nobody_needs_the_ids_of_a_book(prompts: TextPrompts) -> None:
    with pytest.raises(ApiError) as caught:
        asyncio.run(prompts.encode("x" * (COUNTED_MAX + 1), "prompt[3]"))
    assert (caught.value.param, caught.value.code) == ("prompt[3]", "string_above_max_length")


def test_what_is_too_long_by_its_size_is_not_tokenised(prompts: TextPrompts) -> None:
    prompts.check_chars("x" * (TOKEN_CHARS_MAX * 100 - 1), 100)
    with pytest.raises(ApiError) as caught:
        prompts.check_chars("x" * (TOKEN_CHARS_MAX * 100), 100)
    assert (caught.value.param, caught.value.code) == ("prompt", "context_length_exceeded")


def test_messages_for_the_engine(prompts: TextPrompts) -> None:
    request = CompletionRequest.model_validate(
        {"model": "m", "prompt": [5, 6], "n": 2, "logprobs": 3, "seed": 1}
    )
    limits = asyncio.run(prompts.token_limits(request))
    submits = prompts.submits(request, limits, [5, 6], 7, None)
    assert [submit.sampling.seed for submit in submits] == [1, 2]
    for submit in submits:
        assert struct.unpack("<2i", submit.prompt) == (5, 6)
        assert (submit.max_tokens, submit.images, submit.sampling.logprobs) == (7, [], 3)


@pytest.mark.parametrize("length", [4, 256])
def test_words_of_any_length_are_read_alike(
    prompts: TextPrompts, tokenizer: Tokenizer, length: int
) -> None:
    words = [f"{'x' * (length - 2)}{number}" for number in range(10, 99)]
    request = CompletionRequest.model_validate({"model": "m", "prompt": [5], "bad_words": words})
    limits = asyncio.run(prompts.token_limits(request))
    assert limits.bad_words[:2] == [tokenizer.encode_text(t) for t in (words[0], f" {words[0]}")]
    assert len(limits.bad_words) == 2 * len(words)


def test_ids_without_an_embedding(prompts: TextPrompts) -> None:
    last = SPEC.text.vocab_size - 1
    prompts.check_ids([0, last], "prompt")
    with pytest.raises(ApiError) as caught:
        prompts.check_ids([0, last + 1], "prompt")
    assert caught.value.param == "prompt[1]"
