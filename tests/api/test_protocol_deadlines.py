"""Slow, silent and too many clients, with deadlines that a test can wait for."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from server.messages import Delta, FinishReason
from tests.api.fake_engine import FakeEngine, says, until
from tests.api.harness import Background, RunningApi, chat

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    run_dir = tmp_path_factory.mktemp("run")
    with (
        FakeEngine(run_dir, says([5])),
        RunningApi(
            run_dir,
            max_connections=8,
            header_timeout_s=0.3,
            body_timeout_s=1.0,
            body_pause_s=0.4,
            max_url_bytes=100,
            max_header_bytes=2000,
            max_header_fields=20,
        ) as api,
    ):
        api.wait_until_ready()
        yield api


def connect(api: RunningApi) -> socket.socket:
    return socket.create_connection(("127.0.0.1", api.port), timeout=5)


def rest_of(wire: socket.socket) -> bytes:
    received = b""
    while piece := wire.recv(65536):
        received += piece
    return received


def code_of(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]["code"]


def test_a_silent_connection_is_closed(api: RunningApi) -> None:
    with connect(api) as wire:
        assert rest_of(wire) == b""


@pytest.mark.parametrize("sent", [b"G", b"GET /livez HTTP/1.1\r\nhost: a\r\nx: "])
def test_a_head_that_does_not_end(api: RunningApi, sent: bytes) -> None:
    with connect(api) as wire:
        wire.sendall(sent)
        assert code_of(rest_of(wire)) == (408, "request_timeout")


def test_a_head_byte_by_byte(api: RunningApi) -> None:
    began_at = time.monotonic()
    with connect(api) as wire:
        for _ in range(40):
            try:
                wire.sendall(b"a")
            except OSError:
                break
            time.sleep(0.05)
        assert code_of(rest_of(wire)) == (408, "request_timeout")
    assert time.monotonic() - began_at < 3


def test_a_body_that_stops(api: RunningApi) -> None:
    with connect(api) as wire:
        wire.sendall(HEAD + b"content-length: 100\r\n\r\n{")
        answer = rest_of(wire)
    assert code_of(answer) == (408, "request_timeout")
    assert b"x-should-retry: false" in answer


def test_a_body_byte_by_byte(api: RunningApi) -> None:
    with connect(api) as wire:
        wire.sendall(HEAD + b"content-length: 10000\r\n\r\n{")
        for _ in range(8):
            time.sleep(0.15)
            wire.sendall(b" ")
        # What was sent after the answer has not thrown it away.
        assert code_of(rest_of(wire)) == (408, "request_timeout")


def test_the_second_request_of_a_connection_has_a_deadline_too(api: RunningApi) -> None:
    with connect(api) as wire:
        wire.sendall(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n")
        assert wire.recv(4096).startswith(b"HTTP/1.1 200")
        wire.sendall(b"GET /livez HT")
        assert code_of(rest_of(wire)) == (408, "request_timeout")


def test_an_answer_takes_longer_than_a_head_may(tmp_path: Path) -> None:
    """Deadlines end when the request has arrived."""
    with (
        FakeEngine(tmp_path) as engine,
        RunningApi(tmp_path, header_timeout_s=0.2, body_timeout_s=0.2, body_pause_s=0.2) as api,
    ):
        api.wait_until_ready()
        with Background(api, chat()) as request:
            submit = engine.wait_for_requests()[0].submit
            time.sleep(0.6)
            engine.send(Delta(submit.id, [5], FinishReason.LENGTH))
            assert request.response().status_code == 200


def test_a_refused_upload_gets_its_answer_and_ends(api: RunningApi) -> None:
    with connect(api) as wire:
        wire.sendall(HEAD + b"content-length: 999999999\r\n\r\n" + b" " * 1000)
        assert code_of(rest_of(wire)) == (413, "request_too_large")


@pytest.mark.parametrize(
    ("request_head", "answer"),
    [
        (b"GET /" + b"a" * 200 + b" HTTP/1.1\r\nhost: a\r\n\r\n", (414, "url_too_long")),
        (b"GET /?" + b"a" * 200 + b" HTTP/1.1\r\nhost: a\r\n\r\n", (414, "url_too_long")),
        (
            b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"a" * 2050 + b"\r\n\r\n",
            (431, "headers_too_large"),
        ),
        (
            b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"a" * 9000,
            (431, "headers_too_large"),
        ),
        (
            b"GET / HTTP/1.1\r\nhost: a\r\n" + b"x: a\r\n" * 30 + b"\r\n",
            (431, "too_many_headers"),
        ),
    ],
)
def test_a_head_that_is_too_large(
    api: RunningApi, request_head: bytes, answer: tuple[int, str]
) -> None:
    with connect(api) as wire:
        wire.sendall(request_head)
        assert code_of(rest_of(wire)) == answer


def test_idle_connections_make_room_and_busy_ones_do_not(tmp_path: Path) -> None:
    with RunningApi(tmp_path, max_connections=4) as api, ExitStack() as wires:
        api.client.close()
        for _ in range(12):
            wire = wires.enter_context(connect(api))
            wire.sendall(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n")
            assert wire.recv(4096).startswith(b"HTTP/1.1 200")
        for _ in range(4):
            wires.enter_context(connect(api)).sendall(b"GET")  # takes an idle one's place
        with connect(api) as wire:
            answer = rest_of(wire)
        assert code_of(answer) == (503, "too_many_connections")
        assert b"\r\nretry-after: 1\r\n" in answer


def test_who_does_not_read_is_cut_off(tmp_path: Path) -> None:
    api = RunningApi(tmp_path, write_timeout_s=0.5)
    api.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with FakeEngine(tmp_path) as engine, api:
        api.wait_until_ready()
        engine.script = lambda submit: says(*[[400] * 1000] * 200)(submit)[:-1]
        body = json.dumps(chat(stream=True, return_token_ids=True)).encode()
        with socket.socket() as wire:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            wire.connect(("127.0.0.1", api.port))
            wire.sendall(HEAD + b"content-length: %d\r\n\r\n%b" % (len(body), body))
            engine.wait_for_requests()
            assert engine.wait_for_cancels() == [1]
        until(lambda: api.client.get("/livez").status_code == 200)
