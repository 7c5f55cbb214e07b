from __future__ import annotations

import logging

import pytest

from server.model.reading import Progress
from server.runner.loading import check_weights, log_progress


def test_progress_is_told_every_few_seconds_and_at_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tell = log_progress()
    with caplog.at_level(logging.INFO):
        for done, elapsed_s in ((1, 1.0), (2, 5.5), (3, 6.0), (4, 8.0)):
            tell(Progress(done * 2**30, 4 * 2**30, elapsed_s))
    assert [record.getMessage() for record in caplog.records] == [
        "loaded 2.00 of 4.00 GiB at 0.39 GB/s, 6 s left",
        "loaded 4.00 of 4.00 GiB at 0.54 GB/s",
    ]


def test_a_wrong_plan_is_told(caplog: pytest.LogCaptureFixture) -> None:
    check_weights(1000, 1049)
    assert not caplog.text
    check_weights(1000, 1051)
    assert "the plan of memory is wrong by more than 5 %" in caplog.text
