from __future__ import annotations

import json
import socket

import pytest

from tests.api.conftest import Rig


def converse(rig: Rig, data: bytes) -> bytes:
    """Everything that the server answers until it closes the connection."""
    with socket.create_connection(("127.0.0.1", rig.api.port), timeout=5) as wire:
        wire.sendall(data)
        received = b""
        while piece := wire.recv(65536):
            received += piece
        return received


@pytest.mark.parametrize(
    "data",
    [
        b"HELO server\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",  # no host
        b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: " + b"9" * 5000 + b"\r\n\r\n",
    ],
)
def test_what_is_no_http_gets_openais_error_body(rig: Rig, data: bytes) -> None:
    head, _, body = converse(rig, data).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: application/json" in head
    assert b"x-request-id: req-" in head
    assert json.loads(body)["error"]["code"] == "invalid_http"


def test_a_body_that_breaks_the_protocol_closes_the_connection(rig: Rig) -> None:
    answer = converse(
        rig,
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
        b"transfer-encoding: chunked\r\n\r\nnot a chunk size\r\n",
    )
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert rig.api.client.get("/livez").status_code == 200
