from __future__ import annotations

import logging

import pytest

from server.engine.state_line import INTERVAL_S, StateLine
from server.messages import Gauges


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_a_line_every_interval_with_rates_over_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock()
    state = StateLine(clock)
    while clock.now <= 2 * INTERVAL_S:
        done = int(clock.now)
        state.note(
            Gauges(
                requests_running=2,
                requests_waiting=1,
                kv_blocks_used=1,
                kv_blocks=4,
                prompt_tokens_total=100 * done,
                cached_tokens_total=25 * done,
                generated_tokens_total=7 * done,
                steps_total=done,
            )
        )
        clock.now += 1
    first, second = lines(caplog)
    assert first.startswith(
        "2 running, 1 waiting, KV 25 %; 100 tokens/s in (25 % cached), 7 tokens/s"
    )
    assert second == first


def test_nothing_while_idle_and_no_rate_over_a_pause(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock()
    state = StateLine(clock)
    for now in (0.0, 1000.0, 1005.0):
        clock.now = now
        state.note(Gauges(steps_total=int(now)))
    assert lines(caplog) == []
    clock.now = 1000 + INTERVAL_S
    state.note(Gauges(steps_total=1030))
    (line,) = lines(caplog)
    assert " 3 steps/s" in line


def test_the_fields_are_there_for_json(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock()
    state = StateLine(clock)
    for clock.now in (0.0, INTERVAL_S):
        state.note(Gauges(requests_running=3))
    (record,) = caplog.records
    assert getattr(record, "fields")["requests_running"] == 3  # noqa: B009 - set by `extra`
