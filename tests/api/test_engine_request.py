from __future__ import annotations

from typing import Any

import pytest

from server.api.engine_request import (
    LISTED_IDS_MAX,
    EngineRequests,
    priority_of,
    tier_of,
)
from server.api.schemas import ChatRequest
from server.errors import MESSAGE_CHARS_MAX, ApiError
from server.frontend.prompt import Prompt
from server.frontend.tokenizer import Tokenizer
from server.messages import Grammar, GrammarKind, ImageRef, Submit
from server.model.spec import ModelSpec
from server.settings import Settings
from tests.api.harness import chat
from tests.golden import CHECKPOINT

SPEC = ModelSpec.load(CHECKPOINT)
PROMPT = Prompt([1, 2, 3, 4], ((1, 2),))
GRAMMAR = Grammar(GrammarKind.REGEX, "a")


@pytest.fixture(scope="module")
def requests(tokenizer: Tokenizer) -> EngineRequests:
    return EngineRequests(Settings(), SPEC, tokenizer)


def request(**fields: Any) -> ChatRequest:
    return ChatRequest.model_validate(chat("Hi", **fields))


def build_all(requests: EngineRequests, **fields: Any) -> list[Submit]:
    asked = request(**fields)
    limits = requests.token_limits(asked)
    return requests.build(asked, limits, PROMPT, [b"digest"], 7, grammar=GRAMMAR)


def build(requests: EngineRequests, **fields: Any) -> Submit:
    (submit,) = build_all(requests, **fields)
    return submit


def test_what_is_shared_by_all_choices(requests: EngineRequests) -> None:
    submits = build_all(requests, n=2, seed=5)
    assert [submit.sampling.seed for submit in submits] == [5, 6]
    for submit in submits:
        assert submit.prompt == b"".join(i.to_bytes(4, "little") for i in PROMPT.token_ids)
        assert submit.images == [ImageRef(b"digest", 1, 2)]
        assert (submit.max_tokens, submit.grammar, submit.cache_salt) == (7, GRAMMAR, b"")
        assert (submit.prompt_logprobs, submit.priority) == (None, 0)


def test_limits_of_tokens(requests: EngineRequests) -> None:
    sampling = build(
        requests,
        logit_bias={"5": -100, "07": 1.5},
        allowed_token_ids=[3, 4],
        min_tokens=2,
        logprobs=True,
        top_logprobs=4,
    ).sampling
    assert sampling.logit_bias == {5: -100, 7: 1.5}
    assert sampling.allowed_token_ids == [3, 4]
    assert (sampling.min_tokens, sampling.logprobs) == (2, 4)
    assert build(requests).sampling.logprobs is None
    assert build(requests, logprobs=True).sampling.logprobs == 0
    assert build(requests, logprobs=False, top_logprobs=0).sampling.logprobs is None


def test_bad_words_at_the_start_and_behind_a_space(
    requests: EngineRequests, tokenizer: Tokenizer
) -> None:
    words = build(requests, bad_words=["fish", " fish"]).sampling.bad_words
    spellings = [tokenizer.encode_text("fish"), tokenizer.encode_text(" fish")]
    assert words == [ids for i, ids in enumerate(spellings) if ids not in spellings[:i]]


def test_each_allowed_id_counts_once(requests: EngineRequests) -> None:
    assert build(requests, allowed_token_ids=[4, 3, 4, 4]).sampling.allowed_token_ids == [4, 3]
    everything = list(range(SPEC.text.vocab_size)) * 2
    allowed = build(requests, allowed_token_ids=everything, n=1).sampling.allowed_token_ids
    assert allowed is not None and len(allowed) == SPEC.text.vocab_size


def test_all_choices_share_what_was_read_once(requests: EngineRequests) -> None:
    fields = {"bad_words": ["fish"], "logit_bias": {"5": 1}, "allowed_token_ids": [3]}
    one, other = build_all(requests, n=2, **fields)
    assert one.sampling.bad_words is other.sampling.bad_words
    assert one.sampling.logit_bias is other.sampling.logit_bias
    assert one.sampling.allowed_token_ids is other.sampling.allowed_token_ids


def test_ids_of_all_choices_are_bounded_together(requests: EngineRequests) -> None:
    biased = {str(id): 1 for id in range(512)}
    fields = {"logit_bias": biased, "allowed_token_ids": list(range(512)), "n": 2}
    prompts = LISTED_IDS_MAX // (2 * 1024)
    requests.token_limits(request(**fields), prompts)
    with pytest.raises(ApiError) as caught:
        requests.token_limits(request(**fields), prompts + 1)
    error = caught.value
    assert (error.status, error.code) == (400, "array_above_max_length")
    assert error.param == "allowed_token_ids"
    assert f"{LISTED_IDS_MAX}" in error.message and "1024 ids" in error.message
    assert len(error.message) < MESSAGE_CHARS_MAX


def test_words_count_as_the_ids_that_they_are(requests: EngineRequests) -> None:
    words = [f"{'🎉' * 255}{chr(0x4E00 + number)}" for number in range(128)]
    with pytest.raises(ApiError) as caught:
        requests.token_limits(request(bad_words=words), 64)
    assert caught.value.param == "bad_words"
    requests.token_limits(request(bad_words=["fish"] * 128), 1024)


def test_an_answer_cannot_have_to_be_longer_than_it_may(requests: EngineRequests) -> None:
    assert build(requests, min_tokens=7).sampling.min_tokens == 7
    with pytest.raises(ApiError) as caught:
        build(requests, min_tokens=8)
    assert caught.value.param == "min_tokens"


def test_stop_ids(requests: EngineRequests, tokenizer: Tokenizer) -> None:
    assert build(requests, stop_token_ids=[9]).stop_ids == [*tokenizer.stop_ids, 9]
    assert build(requests, stop_token_ids=[9], ignore_eos=True).stop_ids == [9]


@pytest.mark.parametrize(
    ("fields", "priority", "tier"),
    [
        ({}, 0, "default"),
        ({"service_tier": "auto"}, 0, "default"),
        ({"service_tier": "default"}, 0, "default"),
        ({"service_tier": "flex"}, 100, "flex"),
        ({"service_tier": "priority"}, -100, "priority"),
        ({"service_tier": "fast"}, -100, "fast"),
        ({"service_tier": "scale", "priority": 3}, 3, "scale"),
        ({"priority": 0}, 0, "default"),
    ],
)
def test_the_place_in_the_queue(fields: dict[str, Any], priority: int, tier: str) -> None:
    assert priority_of(request(**fields)) == priority
    assert tier_of(request(**fields)) == tier


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"logit_bias": {str(SPEC.text.vocab_size): 1}}, "logit_bias"),
        ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"logit_bias": {"fish": 1}}, "logit_bias"),
        ({"logit_bias": {"²": 1}}, "logit_bias"),
        ({"logit_bias": {"9" * 5000: 1}}, "logit_bias"),
        ({"allowed_token_ids": [0, -1]}, "allowed_token_ids[1]"),
        (
            {"allowed_token_ids": [7], "stop_token_ids": [7], "min_tokens": 1},
            "allowed_token_ids",
        ),
        ({"stop_token_ids": [SPEC.text.vocab_size]}, "stop_token_ids[0]"),
        ({"bad_words": ["a", " "]}, "bad_words[1]"),
        ({"bad_words": ["a" * 257]}, "bad_words[0]"),
    ],
)
def test_ids_and_words_that_cannot_be_meant(
    requests: EngineRequests, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(ApiError) as caught:
        requests.token_limits(request(**fields))
    assert (caught.value.status, caught.value.param) == (400, param)
