"""What each key may use: requests and tokens per minute, and requests at the same time.

Buckets that refill evenly: whoever was silent for a minute may use a minute's worth at once. Tokens
are taken when they are known, the prompt's before anything is computed, the answer's afterwards, so
a bucket can be in debt and is then waited for. Several API processes count in one ledger.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from server.api.keys import Key
from server.api.ledger import ID_BYTES, Entry, Ledger
from server.board import Cells, Tally
from server.errors import ApiError

LEVEL, FILLED_AT_S = range(2)

log = logging.getLogger(__name__)


class Bucket:
    """`per_minute` units that refill evenly; full where nobody has used it.

    Args:
        cells: its level, and when that was right.
    """

    def __init__(self, per_minute: int, now_s: float, cells: Cells[float]) -> None:
        self.per_minute = per_minute
        self._cells = cells
        if not cells[FILLED_AT_S]:
            cells[LEVEL], cells[FILLED_AT_S] = float(per_minute), now_s

    def level(self, now_s: float) -> float:
        passed_s = now_s - self._cells[FILLED_AT_S]
        level = min(self.per_minute, self._cells[LEVEL] + passed_s * self.per_minute / 60)
        self._cells[LEVEL], self._cells[FILLED_AT_S] = level, now_s
        return level

    def take(self, units: int, now_s: float) -> None:
        self._cells[LEVEL] = self.level(now_s) - units

    def wait_s(self, units: int, now_s: float) -> float:
        """Until `take` may be called; what is larger than the bucket needs a full one."""
        missing = min(units, self.per_minute) - self.level(now_s)
        return max(0.0, missing * 60 / self.per_minute)


@dataclass(slots=True)
class Account:
    """What a key has used."""

    requests: Bucket | None
    tokens: Bucket | None
    concurrent: Tally


class Quotas:
    """The accounts of all keys.

    Args:
        ledger: where other API processes count too; None for one that is alone.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, ledger: Ledger | None = None
    ) -> None:
        self._clock = clock
        self._ledger = ledger
        self._accounts: dict[Key, Account] = {}

    def begin(self, key: Key) -> None:
        """Counts a request, until `end`.

        Raises:
            ApiError: 429; the key has as many as it may.
        """
        with self._turn():
            account, now_s, limit = self._account(key), self._clock(), key.limits.concurrent
            if limit is not None and account.concurrent.total >= limit:
                raise _exceeded(f"{limit} requests at the same time", 1.0)
            if account.requests is not None:
                if wait_s := account.requests.wait_s(1, now_s):
                    raise _exceeded(f"{account.requests.per_minute} requests per minute", wait_s)
                account.requests.take(1, now_s)
            account.concurrent.own += 1

    def end(self, key: Key) -> None:
        self._account(key).concurrent.own -= 1

    def take_prompt(self, key: Key, tokens: int) -> None:
        """Raises:
        ApiError: 429; the key has used its tokens.
        """
        with self._turn():
            bucket, now_s = self._account(key).tokens, self._clock()
            if bucket is None:
                return
            if wait_s := bucket.wait_s(tokens, now_s):
                raise _exceeded(f"{bucket.per_minute} tokens per minute", wait_s)
            bucket.take(tokens, now_s)

    def give_back(self, key: Key, tokens: int) -> None:
        """Those of a prompt that was not taken after all."""
        self.take_answer(key, -tokens)

    def take_answer(self, key: Key, tokens: int) -> None:
        with self._turn():
            if (bucket := self._account(key).tokens) is not None:
                bucket.take(tokens, self._clock())

    def headers(self, key: Key) -> list[tuple[bytes, bytes]]:
        """OpenAI's headers about what is left."""
        headers = []
        with self._turn():
            account, now_s = self._account(key), self._clock()
            for kind, bucket in (("requests", account.requests), ("tokens", account.tokens)):
                if bucket is not None:
                    full_s = bucket.wait_s(bucket.per_minute, now_s)
                    headers += [
                        (f"x-ratelimit-limit-{kind}", str(bucket.per_minute)),
                        (f"x-ratelimit-remaining-{kind}", str(max(0, int(bucket.level(now_s))))),
                        (f"x-ratelimit-reset-{kind}", f"{full_s:.3f}s"),
                    ]
        return [(name.encode(), value.encode()) for name, value in headers]

    def _turn(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self._ledger is None else self._ledger.turn()

    def _account(self, key: Key) -> Account:
        account = self._accounts.get(key)
        if account is None:
            limits, now_s, entry = key.limits, self._clock(), self._entry(key)
            requests, tokens = limits.requests_per_minute, limits.tokens_per_minute
            account = self._accounts[key] = Account(
                Bucket(requests, now_s, entry.requests) if requests else None,
                Bucket(tokens, now_s, entry.tokens) if tokens else None,
                entry.concurrent,
            )
        return account

    def _entry(self, key: Key) -> Entry:
        if self._ledger is not None:
            id = hashlib.blake2b(repr(key).encode(), digest_size=ID_BYTES).digest()
            if (entry := self._ledger.entry(id)) is not None:
                return entry
            log.warning("more API keys with limits than the API processes can count together")
        return Entry([0.0, 0.0], [0.0, 0.0], Tally())


def _exceeded(limit: str, wait_s: float) -> ApiError:
    return ApiError(
        429,
        "rate_limit_exceeded",
        f"Rate limit reached: this API key may use {limit}. Try again in {math.ceil(wait_s)} s.",
        retry_after_s=max(1, math.ceil(wait_s)),
    )
