"""Requests that nobody waits for any more."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.messages import Delta, FinishReason
from tests.api.fake_engine import FakeEngine, says
from tests.api.harness import Background, RunningApi, chat


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_that_is_not_begun_in_time(tmp_path: Path, stream: bool) -> None:
    with FakeEngine(tmp_path) as engine, RunningApi(tmp_path, queue_timeout_s=0.2) as api:
        api.wait_until_ready()
        refused = api.post(chat(stream=stream))
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "queue_timeout")
        assert refused.headers["x-should-retry"] == "true"
        assert "0.2 s" in refused.json()["error"]["message"]
        engine.wait_for_cancels()


@pytest.mark.parametrize("header", ["x-request-timeout", "x-stainless-read-timeout"])
def test_the_clients_own_deadline(tmp_path: Path, header: str) -> None:
    with FakeEngine(tmp_path) as engine, RunningApi(tmp_path) as api:
        api.wait_until_ready()
        engine.script = lambda submit: [Delta(submit.id, [400])]
        refused = api.post(chat(), headers={header: "0.3"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "request_timeout")
        assert refused.headers["x-should-retry"] == "false"
        engine.wait_for_cancels()


def test_a_stream_that_lasts_too_long_is_told(tmp_path: Path) -> None:
    with FakeEngine(tmp_path) as engine, RunningApi(tmp_path, request_timeout_s=0.3) as api:
        api.wait_until_ready()
        engine.script = lambda submit: [Delta(submit.id, [400])]
        *_, last = api.events(chat())
        assert last["error"]["code"] == "request_timeout"
        engine.wait_for_cancels()


def test_a_request_that_cannot_be_in_time_is_refused_at_once(tmp_path: Path) -> None:
    with FakeEngine(tmp_path) as engine, RunningApi(tmp_path) as api:
        api.wait_until_ready()
        engine.script = says([5])
        for _ in range(4):
            assert api.post(chat()).status_code == 200
        engine.script = lambda _: []
        with Background(api, chat(n=16)), Background(api, chat(n=16)):
            received = engine.wait_for_requests(4 + 32)[4:]
            refused = api.post(chat(), headers={"x-request-timeout": "0.001"})
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
            assert 1 <= int(refused.headers["retry-after"]) <= 30
            assert len(engine.received) == 4 + 32
            for request in received:
                engine.send(Delta(request.submit.id, [5], FinishReason.LENGTH))
