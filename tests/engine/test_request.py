from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from server.engine.plan import NOTHING
from server.engine.request import NOTHING_LEFT, Request
from server.messages import FinishReason, SamplingParams
from tests.engine.fake import IMAGE_BYTES, VOCAB_SIZE, limits, make_submit

A, B = b"aaaa", b"bbbb"


Images = Sequence[tuple[int, bytes]]


def request(
    prompt: Sequence[int],
    images: Images = (),
    *,
    max_tokens: int = 4,
    cache_salt: bytes = b"",
    pixels: Sequence[bytes] | None = None,
) -> Request:
    submit = make_submit(1, prompt, images=images, max_tokens=max_tokens, cache_salt=cache_salt)
    return Request.from_submit(b"api-0", submit, pixels or [data for _, data in images])


def keys(prompt: Sequence[int], images: Images = (), *, cache_salt: bytes = b"") -> list[bytes]:
    return list(request(prompt, images, cache_salt=cache_salt).prefix_keys(4))


def fault(
    prompt: Sequence[int],
    images: Images = (),
    *,
    max_tokens: int = 4,
    pixels: Sequence[bytes] | None = None,
) -> str:
    return request(prompt, images, max_tokens=max_tokens, pixels=pixels).fault(limits()) or ""


def test_keys_cover_full_blocks_only() -> None:
    assert len(keys(range(7))) == 1
    assert len(keys(range(8))) == 2


def test_a_key_depends_on_everything_before_it() -> None:
    first, second = keys([1, 2, 3, 4, 5, 6, 7, 8]), keys([9, 2, 3, 4, 5, 6, 7, 8])
    assert first[0] != second[0]
    assert first[1] != second[1]


def test_keys_are_those_of_the_tokens_whatever_is_asked_first() -> None:
    grown = request(range(4))
    list(grown.prefix_keys(4))
    grown.tokens.extend(range(4, 8))
    assert list(grown.prefix_keys(4)) == keys(range(8))


def test_pictures_tell_equal_token_ids_apart() -> None:
    same = keys(range(12), images=[(2, A)])
    other = keys(range(12), images=[(2, B)])
    moved = keys(range(12), images=[(3, A)])
    assert same == keys(range(12), images=[(2, A)])
    assert same[0] != other[0]
    assert same[0] != moved[0]
    assert same[2] != other[2], "a block after the picture sees the picture"


def test_a_picture_does_not_change_what_comes_before_it() -> None:
    assert keys(range(12), images=[(5, A)])[0] == keys(range(12))[0]


def test_the_salt_separates_tenants() -> None:
    assert keys(range(4), cache_salt=b"x") != keys(range(4), cache_salt=b"y")


def test_remaining_counts_tokens_in_flight_and_ends_at_the_limit() -> None:
    r = request([1, 2, 3], max_tokens=2)
    assert r.remaining == 3
    r.scheduled, r.unknown = 3, 1
    assert r.remaining == 1
    r.scheduled, r.unknown = 4, 2
    assert r.remaining == 0


def test_what_could_never_run_is_named() -> None:
    assert fault(range(8), images=[(1, A)]) == ""
    assert "needs a prompt" in fault([])
    assert "needs a prompt" in fault([1], max_tokens=0)
    assert "longer than 64" in fault([1] * 61, max_tokens=4)
    assert "vocabulary" in fault([VOCAB_SIZE])
    assert "vocabulary" in fault([-1])
    assert "outside the prompt" in fault(range(8), images=[(3, A)])
    assert "overlap" in fault(range(20), images=[(1, A), (6, B)])
    assert "overlap" in fault(range(8), images=[(-1, A)])
    assert "wrong size" in fault(range(8), images=[(1, b"a" * (IMAGE_BYTES + 1))])
    assert "number" in fault(range(20), images=[(1, A)], pixels=[A, B])


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"prompt": b"12345"}, "needs a prompt"),
        ({"sampling": SamplingParams(bad_words=[[1], []])}, "empty"),
        ({"sampling": SamplingParams(allowed_token_ids=[])}, "empty"),
        ({"sampling": SamplingParams(logprobs=VOCAB_SIZE + 1)}, "log probabilities"),
        ({"sampling": SamplingParams(logprobs=-1)}, "log probabilities"),
        ({"prompt_logprobs": VOCAB_SIZE + 1}, "log probabilities"),
        ({"sampling": SamplingParams(logprobs=VOCAB_SIZE), "prompt_logprobs": VOCAB_SIZE}, ""),
    ],
)
def test_what_no_runner_could_do_is_named(changes: dict[str, Any], named: str) -> None:
    submit = msgspec.structs.replace(make_submit(1, range(8)), **changes)
    fault = Request.from_submit(b"api-0", submit, []).fault(limits())
    assert named in (fault or "")
    assert bool(fault) == bool(named)


def test_an_answer_ends_where_nothing_could_be_drawn() -> None:
    r = request([1, 2, 3], max_tokens=9)
    token, end = r.take([(5, None), (NOTHING, None), (6, None)])
    assert (token.token_ids, token.finish) == ([5], None)
    assert (end.token_ids, end.finish, end.error) == ([], FinishReason.ERROR, NOTHING_LEFT)
    assert list(r.tokens) == [1, 2, 3, 5]
