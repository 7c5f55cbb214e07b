"""What each key may use: requests and tokens per minute, and requests at the same time.

Buckets that refill evenly: whoever was silent for a minute may use a minute's worth at once. Tokens
are taken when they are known, the prompt's before anything is computed, the answer's afterwards, so
a bucket can be in debt and is then waited for.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from server.api.keys import Key
from server.errors import ApiError


class Bucket:
    """`per_minute` units that refill evenly."""

    def __init__(self, per_minute: int, now_s: float) -> None:
        self.per_minute = per_minute
        self._level = float(per_minute)
        self._filled_at_s = now_s

    def level(self, now_s: float) -> float:
        passed_s = now_s - self._filled_at_s
        self._level = min(self.per_minute, self._level + passed_s * self.per_minute / 60)
        self._filled_at_s = now_s
        return self._level

    def take(self, units: int, now_s: float) -> None:
        self._level = self.level(now_s) - units

    def wait_s(self, units: int, now_s: float) -> float:
        """Until `take` may be called; what is larger than the bucket needs a full one."""
        missing = min(units, self.per_minute) - self.level(now_s)
        return max(0.0, missing * 60 / self.per_minute)


@dataclass(slots=True)
class Account:
    """What a key has used."""

    requests: Bucket | None
    tokens: Bucket | None
    concurrent: int = 0


class Quotas:
    """The accounts of all keys."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._accounts: dict[Key, Account] = {}

    def begin(self, key: Key) -> None:
        """Counts a request, until `end`.

        Raises:
            ApiError: 429; the key has as many as it may.
        """
        account, now_s, limit = self._account(key), self._clock(), key.limits.concurrent
        if limit is not None and account.concurrent >= limit:
            raise _exceeded(f"{limit} requests at the same time", 1.0)
        if account.requests is not None:
            if wait_s := account.requests.wait_s(1, now_s):
                raise _exceeded(f"{account.requests.per_minute} requests per minute", wait_s)
            account.requests.take(1, now_s)
        account.concurrent += 1

    def end(self, key: Key) -> None:
        self._account(key).concurrent -= 1

    def take_prompt(self, key: Key, tokens: int) -> None:
        """Raises:
        ApiError: 429; the key has used its tokens.
        """
        bucket, now_s = self._account(key).tokens, self._clock()
        if bucket is None:
            return
        if wait_s := bucket.wait_s(tokens, now_s):
            raise _exceeded(f"{bucket.per_minute} tokens per minute", wait_s)
        bucket.take(tokens, now_s)

    def take_answer(self, key: Key, tokens: int) -> None:
        if (bucket := self._account(key).tokens) is not None:
            bucket.take(tokens, self._clock())

    def headers(self, key: Key) -> list[tuple[bytes, bytes]]:
        """OpenAI's headers about what is left."""
        account, now_s, headers = self._account(key), self._clock(), []
        for kind, bucket in (("requests", account.requests), ("tokens", account.tokens)):
            if bucket is not None:
                full_s = bucket.wait_s(bucket.per_minute, now_s)
                headers += [
                    (f"x-ratelimit-limit-{kind}", str(bucket.per_minute)),
                    (f"x-ratelimit-remaining-{kind}", str(max(0, int(bucket.level(now_s))))),
                    (f"x-ratelimit-reset-{kind}", f"{full_s:.3f}s"),
                ]
        return [(name.encode(), value.encode()) for name, value in headers]

    def _account(self, key: Key) -> Account:
        account = self._accounts.get(key)
        if account is None:
            limits, now_s = key.limits, self._clock()
            account = self._accounts[key] = Account(
                Bucket(limits.requests_per_minute, now_s) if limits.requests_per_minute else None,
                Bucket(limits.tokens_per_minute, now_s) if limits.tokens_per_minute else None,
            )
        return account


def _exceeded(limit: str, wait_s: float) -> ApiError:
    return ApiError(
        429,
        "rate_limit_exceeded",
        f"Rate limit reached: this API key may use {limit}. Try again in {math.ceil(wait_s)} s.",
        retry_after_s=max(1, math.ceil(wait_s)),
    )
