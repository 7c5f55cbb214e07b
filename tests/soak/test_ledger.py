from __future__ import annotations

import json

import pytest

from tests.soak.ledger import Ledger, stream_outcome


def chunk(index: int, finish: str | None = None) -> str:
    choice = {"index": index, "delta": {}, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [choice]})}"


ERROR = 'data: {"error": {"code": "engine_died"}}'


def test_streams_that_end_once() -> None:
    assert stream_outcome([chunk(0), "", ": hi", chunk(0, "stop"), "data: [DONE]"], 1) == "done"
    assert stream_outcome([chunk(0), ERROR], 1) == "engine_died"


@pytest.mark.parametrize(
    "lines",
    [
        [chunk(0), chunk(0, "stop")],
        [chunk(0, "stop"), chunk(0, "stop"), "data: [DONE]"],
        [chunk(0, "stop"), "data: [DONE]", "data: [DONE]"],
        [chunk(0), "data: [DONE]"],
        [chunk(0, "stop"), ERROR, "data: [DONE]"],
    ],
)
def test_streams_that_do_not(lines: list[str]) -> None:
    with pytest.raises(ValueError):
        stream_outcome(lines, 1)


def test_failures_without_a_restart_are_found() -> None:
    ledger = Ledger()
    ledger.end("plain", "engine_died")
    with pytest.raises(AssertionError, match="plain: engine_died"):
        ledger.check()
    ledger.restarted(0.0, float("inf"))
    ledger.check()
