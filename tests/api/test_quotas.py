from __future__ import annotations

import pytest

from server.api.keys import Key, KeyLimits
from server.api.quotas import Quotas
from server.errors import ApiError


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def refused(quotas: Quotas, key: Key, tokens: int | None = None) -> ApiError:
    with pytest.raises(ApiError) as caught:
        quotas.begin(key) if tokens is None else quotas.take_prompt(key, tokens)
    assert (caught.value.status, caught.value.code) == (429, "rate_limit_exceeded")
    return caught.value


def test_without_limits_nothing_is_counted() -> None:
    quotas, key = Quotas(), Key("a", KeyLimits())
    for _ in range(1000):
        quotas.begin(key)
        quotas.take_prompt(key, 10**9)
    assert quotas.headers(key) == []


def test_requests_per_minute() -> None:
    clock = Clock()
    quotas, key = Quotas(clock), Key("a", KeyLimits(requests_per_minute=3))
    for _ in range(3):
        quotas.begin(key)
    assert refused(quotas, key).headers["retry-after"] == "20"
    assert "3 requests per minute" in refused(quotas, key).message
    quotas.begin(Key("b", KeyLimits(requests_per_minute=3)))
    clock.now_s += 20
    quotas.begin(key)
    refused(quotas, key)


def test_concurrent_requests() -> None:
    quotas, key = Quotas(), Key("a", KeyLimits(concurrent=2))
    quotas.begin(key)
    quotas.begin(key)
    refused(quotas, key)
    quotas.end(key)
    quotas.begin(key)


def test_tokens_are_settled_afterwards() -> None:
    clock = Clock()
    quotas, key = Quotas(clock), Key("a", KeyLimits(tokens_per_minute=600))
    quotas.take_prompt(key, 500)
    quotas.take_answer(key, 400)
    assert refused(quotas, key, 10).headers["retry-after"] == "31"
    clock.now_s += 31
    quotas.take_prompt(key, 10)


def test_tokens_of_what_was_not_taken_come_back() -> None:
    quotas, key = Quotas(Clock()), Key("a", KeyLimits(tokens_per_minute=600))
    quotas.take_prompt(key, 500)
    quotas.give_back(key, 500)
    quotas.give_back(Key("b", KeyLimits()), 500)
    quotas.take_prompt(key, 600)
    refused(quotas, key, 1)


def test_a_prompt_larger_than_the_bucket_needs_a_full_one() -> None:
    clock = Clock()
    quotas, key = Quotas(clock), Key("a", KeyLimits(tokens_per_minute=60))
    quotas.take_prompt(key, 100)
    refused(quotas, key, 100)
    clock.now_s += 100
    quotas.take_prompt(key, 100)


def test_headers_say_what_is_left() -> None:
    quotas, key = Quotas(Clock()), Key("a", KeyLimits(requests_per_minute=4, tokens_per_minute=60))
    quotas.begin(key)
    quotas.take_prompt(key, 20)
    assert dict(quotas.headers(key)) == {
        b"x-ratelimit-limit-requests": b"4",
        b"x-ratelimit-remaining-requests": b"3",
        b"x-ratelimit-reset-requests": b"15.000s",
        b"x-ratelimit-limit-tokens": b"60",
        b"x-ratelimit-remaining-tokens": b"40",
        b"x-ratelimit-reset-tokens": b"20.000s",
    }
