from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.types import Message

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


class Upload:
    """A body on its way."""

    def __init__(self, bodies: Bodies, declared: int) -> None:
        self.end = ExitStack()
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        scope = {
            "type": "http",
            "headers": [(b"content-length", b"%d" % declared)],
            "state": {"at_end": self.end},
        }
        self.reading = asyncio.create_task(bodies.read(Request(scope, self._messages.get)))

    async def send(self, size_bytes: int, *, more: bool = True) -> None:
        message = {"type": "http.request", "body": b"x" * size_bytes, "more_body": more}
        self._messages.put_nowait(message)
        await asyncio.wait([self.reading], timeout=0.02)


def test_only_what_has_arrived_takes_room() -> None:
    bodies = Bodies(Limits(max_total_body_bytes=10))

    async def main() -> None:
        silent = [Upload(bodies, 9) for _ in range(16)]
        for upload in silent:
            await upload.send(0)
        whole = Upload(bodies, 9)
        await whole.send(9, more=False)
        assert await whole.reading == b"x" * 9
        for upload in silent:
            assert not upload.reading.done()
            upload.reading.cancel()

    asyncio.run(main())


def test_slow_bodies_are_bounded_together() -> None:
    bodies = Bodies(Limits(max_total_body_bytes=10))

    async def main() -> None:
        first, second = Upload(bodies, 9), Upload(bodies, 9)
        await first.send(0)
        await second.send(5)
        await first.send(4)
        assert bodies.held_bytes == 9
        await first.send(2)
        with pytest.raises(ApiError) as caught:
            await first.reading
        assert (caught.value.status, caught.value.headers["retry-after"]) == (429, "1")
        first.end.close()
        await second.send(4, more=False)
        assert await second.reading == b"x" * 9
        assert bodies.held_bytes == 9
        second.end.close()
        assert bodies.held_bytes == 0

    asyncio.run(main())


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


HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n"
)


@contextmanager
def unfinished(api: RunningApi, *, declared: int, sent: int) -> Iterator[socket.socket]:
    """A request that declares a body and sends its beginning."""
    with socket.create_connection(("127.0.0.1", api.port), timeout=5) as wire:
        wire.sendall(HEAD % declared + b" " * sent)
        yield wire


@pytest.mark.parametrize(("declared", "status"), [(3001, 413), (1600, 429)])
def test_what_cannot_fit_is_refused_before_it_is_sent(
    tmp_path: Path, declared: int, status: int
) -> None:
    with FakeEngine(tmp_path) as engine, RunningApi(tmp_path, max_total_body_bytes=3000) as api:
        api.wait_until_ready()
        with Background(api, chat(user="x" * 1500)):
            submit = engine.wait_for_requests()[0].submit
            with unfinished(api, declared=declared, sent=0) as wire:
                assert wire.recv(65536).startswith(b"HTTP/1.1 %d " % status)
            engine.send(Delta(submit.id, [5], FinishReason.LENGTH))


def send(api: RunningApi, fields: dict[str, Any], *, chunked: bool) -> httpx.Response:
    body = json.dumps(fields).encode()
    content: bytes | Iterator[bytes] = iter((body[:100], body[100:])) if chunked else body
    return api.client.post(
        "/v1/chat/completions", content=content, headers={"content-type": "application/json"}
    )
