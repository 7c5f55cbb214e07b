"""uvicorn's HTTP/1.1 protocol, with OpenAI's error body for what is no HTTP at all."""

from __future__ import annotations

import uuid

import h11
import msgspec
from uvicorn.protocols.http.h11_impl import H11Protocol

from server.errors import invalid


class OpenAiH11Protocol(H11Protocol):
    """Only the answer to bytes that h11 cannot read differs."""

    def send_400_response(self, msg: str) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = msgspec.json.encode(
                invalid("The request is not valid HTTP.", param=None, code="invalid_http").body()
            )
            headers = [
                ("content-type", "application/json"),
                ("content-length", str(len(body))),
                ("x-request-id", f"req-{uuid.uuid4().hex}"),
                ("connection", "close"),
            ]
            response = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
            for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
