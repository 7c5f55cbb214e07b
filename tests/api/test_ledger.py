from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from server.api import ledger as ledger_module
from server.api.keys import Key, KeyLimits
from server.api.ledger import Ledger
from server.api.quotas import Quotas
from server.errors import ApiError
from tests.api.test_quotas import Clock, refused

KEY = Key("a", KeyLimits(requests_per_minute=3, tokens_per_minute=600, concurrent=2))


@pytest.fixture
def both(tmp_path: Path) -> Iterator[list[Quotas]]:
    """The quotas of two processes."""
    clock = Clock()
    clock.now_s = 1.0
    with ExitStack() as owned:
        ledgers = [owned.enter_context(closing(Ledger(tmp_path, 2, own))) for own in range(2)]
        yield [Quotas(clock, ledger) for ledger in ledgers]


def test_a_key_has_its_requests_once(both: list[Quotas]) -> None:
    first, second = both
    first.begin(KEY)
    second.begin(KEY)
    for quotas in both:
        assert "2 requests at the same time" in refused(quotas, KEY).message
    first.end(KEY)
    second.begin(KEY)
    first.end(KEY)
    for quotas in both:
        assert "3 requests per minute" in refused(quotas, KEY).message
    headers = [dict(quotas.headers(KEY)) for quotas in both]
    assert headers[0] == headers[1]
    assert headers[0][b"x-ratelimit-remaining-requests"] == b"0"


def test_a_key_has_its_tokens_once(both: list[Quotas]) -> None:
    first, second = both
    first.take_prompt(KEY, 500)
    second.take_answer(KEY, 400)
    for quotas in both:
        assert refused(quotas, KEY, 10).headers["retry-after"] == "31"


def test_keys_and_changed_limits_are_apart(both: list[Quotas]) -> None:
    for key in (KEY, Key("b", KEY.limits), Key("a", KeyLimits(concurrent=2))):
        for quotas in both:
            quotas.begin(key)
        refused(both[0], key)


def test_a_process_that_is_killed_gives_back_what_it_held(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path, 2, 0)) as ledger, closing(Ledger(tmp_path, 2, 1)) as dying:
        quotas, killed = Quotas(ledger=ledger), Quotas(ledger=dying)
        for _ in range(2):
            killed.begin(KEY)
        refused(quotas, KEY)
        with closing(Ledger(tmp_path, 2, 1)):
            quotas.begin(KEY)
            with pytest.raises(ApiError, match="3 requests per minute"):
                quotas.begin(KEY)


def test_a_process_that_is_stopped_in_its_turn_stops_nobody(
    both: list[Quotas], tmp_path: Path
) -> None:
    lock = os.open(tmp_path / "quotas", os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        began_at = time.monotonic()
        both[0].begin(KEY)
        assert time.monotonic() - began_at < 1
    finally:
        os.close(lock)
    both[1].begin(KEY)
    refused(both[0], KEY)


def test_keys_beyond_the_room_are_counted_by_each_process(
    both: list[Quotas], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "ACCOUNTS_MAX", 0)
    for quotas in both:
        quotas.begin(KEY)
        quotas.begin(KEY)
        refused(quotas, KEY)
