"""What a hostile case is: bytes for the wire, and the one answer that is right."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

CHAT = "/v1/chat/completions"
MODEL = "tiny-a"


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    wire: bytes
    """Everything that is sent."""
    status: int
    code: str | None
    """Of OpenAI's error body; None where the answer is no error."""


def post(body: bytes, path: str = CHAT, head: str = "content-type: application/json\r\n") -> bytes:
    """A request with a body."""
    return (
        f"POST {path} HTTP/1.1\r\nhost: a\r\n{head}content-length: {len(body)}\r\n"
        "connection: close\r\n\r\n"
    ).encode() + body


def chat(content: Any = "Hi", **fields: Any) -> bytes:
    """A chat request on the wire, as short as an answer can be."""
    messages = [{"role": "user", "content": content}]
    body = {"model": MODEL, "messages": messages, "max_tokens": 1, **fields}
    return post(json.dumps(body).encode())


def picture(url: Any) -> bytes:
    return chat([{"type": "image_url", "image_url": {"url": url}}])
