from __future__ import annotations

import pytest

from server.bench.client import Measured
from server.bench.plan import BenchError
from server.bench.summary import parse_limits, summarise

FAST = Measured(0.0, 0.001, 1.0, 0.2, [0.1] * 8, 10, 4, 9, "length")
SLOW = Measured(1.0, 0.003, 3.0, 2.0, [0.25] * 4, 20, 0, 5, "length")
FAILED = Measured(2.0, 0.0, 9.0, error="HTTP 500")


def test_figures_are_those_of_the_requests_that_ended_well() -> None:
    summary = summarise([FAST, SLOW], {}, cpu_seconds=1.0)
    assert (summary.completed, summary.failed, summary.seconds) == (2, 0, 4.0)
    assert summary.requests_per_s == 0.5
    assert summary.output_tokens_per_s == 14 / 4
    assert summary.total_tokens_per_s == 44 / 4
    assert (summary.prompt_tokens, summary.cached_tokens, summary.output_tokens) == (30, 4, 14)
    assert summary.ttft_ms is not None
    assert (summary.ttft_ms.mean, summary.ttft_ms.max) == pytest.approx((1100, 2000))
    assert summary.tpot_ms is not None
    assert summary.tpot_ms.max == pytest.approx((3.0 - 2.0) / 4 * 1000)
    assert summary.itl_ms is not None
    assert summary.itl_ms.p50 == pytest.approx(100)
    assert summary.client_cpu_share == 0.25
    assert summary.good_requests_per_s is None


def test_failures_are_counted_only() -> None:
    summary = summarise([FAST, FAILED], {}, cpu_seconds=0.0)
    assert (summary.completed, summary.failed) == (1, 1)
    assert summary.e2e_ms is not None
    assert summary.e2e_ms.max == 1000


@pytest.mark.parametrize(
    ("limits", "good"),
    [({"ttft": 200.0}, 1), ({"ttft": 2000.0}, 2), ({"tpot": 99.0}, 0), ({"e2e": 1000.0}, 1)],
)
def test_goodput_counts_what_meets_all_limits(limits: dict[str, float], good: int) -> None:
    rate = summarise([FAST, SLOW, FAILED], limits, cpu_seconds=0.0).good_requests_per_s
    assert rate == pytest.approx(good / 11)


def test_limits_are_read_or_refused() -> None:
    assert parse_limits(["ttft:2000", "tpot:50.5"]) == {"ttft": 2000, "tpot": 50.5}
    for word in ("ttft", "itl:3", "ttft:x"):
        with pytest.raises(BenchError, match=f"--goodput {word}: want one of"):
            parse_limits([word])


def test_nothing_at_all() -> None:
    summary = summarise([], {}, cpu_seconds=0.0)
    assert (summary.completed, summary.ttft_ms, summary.lag_p99_ms) == (0, None, 0)
