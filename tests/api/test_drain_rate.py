from __future__ import annotations

import pytest

from server.api.drain_rate import DrainRate


def test_nothing_is_told_before_anything_ended() -> None:
    now = 0.0
    rate = DrainRate(lambda: now)
    assert rate.seconds_for(10) is None
    rate.count_end()
    assert rate.seconds_for(10) is None


def test_the_rate_is_that_of_the_last_minute() -> None:
    now = 0.0
    rate = DrainRate(lambda: now)
    for second in range(100):
        now = float(second)
        rate.count_end()
    assert rate.seconds_for(10) == pytest.approx(10, rel=0.05)
    now = 120.0
    assert rate.seconds_for(10) == pytest.approx(15, rel=0.1), "it became slower"
    now = 300.0
    assert rate.seconds_for(10) is None
