"""A client that goes away frees the engine, whatever it asked for and however far it got."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from server.messages import Delta
from tests.api.conftest import Rig
from tests.api.fake_engine import until
from tests.api.harness import chat


@contextmanager
def connection(rig: Rig, body: dict[str, Any]) -> Iterator[socket.socket]:
    """A bare connection on which a request was sent; leaving the block closes it."""
    data = json.dumps(body).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
        f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", rig.api.port), timeout=5) as wire:
        wire.sendall(head.encode() + data)
        yield wire


@pytest.mark.parametrize("stream", [False, True])
def test_before_the_first_token(rig: Rig, stream: bool) -> None:
    with connection(rig, chat(n=2, stream=stream)):
        rig.engine.wait_for_requests(2)
    expected = [received.submit.id for received in rig.engine.received]
    assert rig.engine.wait_for_cancels(2) == expected


def test_in_the_middle_of_a_stream(rig: Rig) -> None:
    rig.engine.script = lambda submit: [Delta(submit.id, [400])]
    with connection(rig, chat(stream=True)) as wire:
        received = b""
        while b'"content":"' not in received.replace(b'"content":""', b""):
            received += wire.recv(65536)
    assert rig.engine.wait_for_cancels() == [rig.engine.received[0].submit.id]


def test_in_the_middle_of_a_plain_request(rig: Rig) -> None:
    rig.engine.script = lambda submit: [Delta(submit.id, [400])]
    with connection(rig, chat()):
        rig.engine.wait_for_requests()
    assert rig.engine.wait_for_cancels() == [rig.engine.received[0].submit.id]


def test_while_the_body_is_sent(rig: Rig) -> None:
    with socket.create_connection(("127.0.0.1", rig.api.port), timeout=5) as wire:
        wire.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
            b'content-type: application/json\r\ncontent-length: 100\r\n\r\n{"model"'
        )

    def gone() -> bool:
        try:
            return rig.api.metric('internvl_http_responses_total{code="499"}') >= 1
        except KeyError:
            return False

    until(gone)
    assert rig.engine.received == []


def test_many_clients_leave_nothing_behind(rig: Rig) -> None:
    for number in range(1, 31):
        with connection(rig, chat(stream=bool(number % 2))):
            rig.engine.wait_for_requests(number)
    cancelled = rig.engine.wait_for_cancels(30)
    assert cancelled == [received.submit.id for received in rig.engine.received]
