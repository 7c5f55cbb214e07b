from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.middleware import Envelope
from server.metrics import ApiMetrics
from tests.views import View


def new_metrics() -> ApiMetrics:
    return ApiMetrics(View())


def run(
    app: ASGIApp, request_id: str | None = None, metrics: ApiMetrics | None = None
) -> list[Message]:
    """What an application sends through the envelope."""
    sent: list[Message] = []
    headers = [] if request_id is None else [(b"x-request-id", request_id.encode("latin-1"))]
    scope: Scope = {"type": "http", "method": "GET", "path": "/", "headers": headers}

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(Envelope(app, metrics or new_metrics())(scope, receive, send))
    return sent


async def echo_request_id(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": [(b"x-own", b"1")]})
    await send({"type": "http.response.body", "body": scope["state"]["request_id"].encode()})


def headers_of(sent: list[Message]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in sent[0]["headers"]}


def test_every_response_has_an_id_and_a_time() -> None:
    first, second = run(echo_request_id), run(echo_request_id)
    headers = headers_of(first)
    assert headers["x-own"] == "1"
    assert headers["openai-version"] == "2020-10-01"
    assert int(headers["openai-processing-ms"]) >= 0
    assert headers["x-request-id"].startswith("req-")
    assert headers["x-request-id"] != headers_of(second)["x-request-id"]
    assert first[1]["body"].decode() == headers["x-request-id"]


@pytest.mark.parametrize("given", ["a", "0f8fad5b-d9cb-469f-a165-70867728950e", "x" * 64])
def test_the_clients_id_is_kept(given: str) -> None:
    assert headers_of(run(echo_request_id, given))["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a\r\nb", "ü", "a_b"])
def test_an_id_that_could_do_harm_is_replaced(given: str) -> None:
    assert headers_of(run(echo_request_id, given))["x-request-id"].startswith("req-")


def test_an_application_that_fails_is_answered_in_openais_shape() -> None:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("a secret")

    metrics = new_metrics()
    start, body = run(fail, metrics=metrics)
    assert start["status"] == 500
    error: dict[str, Any] = json.loads(body["body"])["error"]
    assert (error["type"], error["code"]) == ("server_error", "internal_error")
    assert b"secret" not in body["body"]
    assert headers_of([start])["x-request-id"]
    assert b'internvl_http_responses_total{code="500"} 1.0' in metrics.render()


def test_a_response_that_breaks_off_is_left_to_the_server() -> None:
    async def fail_late(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("late")

    with pytest.raises(RuntimeError):
        run(fail_late)


def test_other_protocols_pass_untouched() -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    async def nothing(*_: Any) -> Any:
        return None

    asyncio.run(Envelope(app, new_metrics())({"type": "lifespan"}, nothing, nothing))
    assert seen == [{"type": "lifespan"}]
