"""Answers of a server that the tests write themselves, put in the daemon's place."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from playwright.sync_api import Route

from tests.page.playground import Playground

CHAT = "**/v1/chat/completions"


def stream(*texts: str, logprobs: bool = False, end: bool = True) -> str:
    """The body of a streamed answer in these pieces; without its end when the line is cut."""
    events = [_chunk({"role": "assistant", "content": ""})]
    for text in texts:
        scored = {"token": text, "logprob": -0.1, "bytes": None}
        content = [{**scored, "top_logprobs": [scored, {**scored, "token": text[::-1]}]}]
        events.append(_chunk({"content": text}, {"content": content} if logprobs else None))
    if end:
        events.append(_chunk({}, finish="stop"))
    lines = [f"data: {json.dumps(event)}\n\n" for event in events]
    return "".join([*lines, "data: [DONE]\n\n" if end else ""])


def _chunk(delta: Mapping[str, Any], logprobs: Any = None, finish: str | None = None) -> Any:
    choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
    return {"object": "chat.completion.chunk", "choices": [choice]}


def answer_with(page: Playground, body: str) -> None:
    page.tab.route(CHAT, lambda route: route.fulfill(content_type="text/event-stream", body=body))


def refuse_with(page: Playground, status: int, code: str, wait_s: int | None = None) -> None:
    headers = {} if wait_s is None else {"retry-after": str(wait_s)}
    error = {"message": "In the server's words.", "type": "x", "param": None, "code": code}
    page.tab.route(
        CHAT, lambda route: route.fulfill(status=status, headers=headers, json={"error": error})
    )


def handle(page: Playground, handler: Callable[[Route], None]) -> None:
    page.tab.route(CHAT, handler)


def let_through(page: Playground) -> None:
    page.tab.unroute(CHAT)
