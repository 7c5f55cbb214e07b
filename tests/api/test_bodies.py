from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.api.bodies import Bodies
from server.errors import ApiError
from server.limits import Limits
from server.messages import Delta, FinishReason
from tests.api.fake_engine import FakeEngine, says, until
from tests.api.harness import Background, RunningApi, chat


def test_room_is_given_back() -> None:
    bodies = Bodies(Limits(max_total_body_bytes=10))
    bodies.take(8)
    with pytest.raises(ApiError) as caught:
        bodies.take(3)
    assert caught.value.status == 429
    assert "10 at most" in caught.value.message
    bodies.give_back(8)
    bodies.take(10)
    assert bodies.held_bytes == 10


@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_of_unfinished_requests_are_bounded_together(tmp_path: Path, chunked: bool) -> None:
    with FakeEngine(tmp_path) as engine, RunningApi(tmp_path, max_total_body_bytes=3000) as api:
        api.wait_until_ready()
        body = chat(user="x" * 1500)
        with Background(api, body) as first:
            submit = engine.wait_for_requests()[0].submit
            refused = send(api, body, chunked=chunked)
            assert refused.status_code == 429
            assert refused.json()["error"]["code"] == "rate_limit_exceeded"
            assert refused.headers["retry-after"] == "1"
            engine.send(Delta(submit.id, [5], FinishReason.LENGTH))
            assert first.response().status_code == 200
        engine.script = says([5])
        until(lambda: send(api, body, chunked=chunked).status_code == 200)


def send(api: RunningApi, fields: dict[str, Any], *, chunked: bool) -> httpx.Response:
    body = json.dumps(fields).encode()
    content: bytes | Iterator[bytes] = iter((body[:100], body[100:])) if chunked else body
    return api.client.post(
        "/v1/chat/completions", content=content, headers={"content-type": "application/json"}
    )
