from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from server import watchdog
from server.heartbeat import Heartbeat
from server.watchdog import Watchdog

RANKS = ["engine", "rank-1", "rank-2"]
APIS = ["api-0", "api-1"]
UNITS = [RANKS, *([name] for name in APIS)]


@pytest.fixture
def beat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, float], None]:
    """Sets a process's last turn, in seconds of a clock that stands at 1000."""
    now_s = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)

    def turn(place: int, ago_s: float) -> None:
        nonlocal now_s
        now_s = 1000.0 - ago_s
        with Heartbeat(tmp_path, [*RANKS, *APIS][place]) as pulse:
            pulse.beat()
        now_s = 1000.0

    return turn


@pytest.mark.parametrize(
    ("ages_s", "stopped"),
    [
        ({0: 10.9, 1: 9.9, 2: 0.1}, None),
        ({0: 11.0, 1: 0.1, 2: 0.1}, "engine"),
        ({0: 10.1, 1: 10.0, 2: 0.1}, "rank-1"),
        ({0: 11.2, 1: 11.1, 2: 0.1}, "rank-1"),
        ({0: 0.1, 1: 0.1, 2: 10.0}, "rank-2"),
        ({}, None),
    ],
)
def test_the_rank_that_stopped_and_not_the_one_that_waits_for_it(
    tmp_path: Path,
    beat: Callable[[int, float], None],
    ages_s: dict[int, float],
    stopped: str | None,
) -> None:
    with Watchdog(tmp_path, UNITS, timeout_s=10) as dog:
        for rank, age_s in ages_s.items():
            beat(rank, age_s)
        assert dog.stopped() == stopped
        assert stopped is None or dog.stopped() is None, "once"


def test_an_api_process_that_stopped_does_not_hide_the_engine(
    tmp_path: Path, beat: Callable[[int, float], None]
) -> None:
    with Watchdog(tmp_path, UNITS, timeout_s=10) as dog:
        for place, age_s in enumerate((11.0, 0.1, 0.1, 0.1, 10.0)):
            beat(place, age_s)
        assert [dog.stopped() for _ in range(3)] == ["api-1", "engine", None]


def test_silent_ranks_are_mentioned_and_the_engine_is_not(
    tmp_path: Path, beat: Callable[[int, float], None], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR), Watchdog(tmp_path, UNITS, timeout_s=10) as dog:
        for rank in range(len(RANKS)):
            beat(rank, watchdog.SILENT_S * (rank != 2))
        dog.mention_silent()
    assert caplog.messages == ["rank-1 has stood still for 2 s"]
