"""Streams that are running when something happens, and what must have become of them."""

from __future__ import annotations

import json
import threading
from typing import Any

import httpx

from tests import golden
from tests.e2e.conversations import request
from tests.e2e.daemon import MODEL, Daemon

ENDLESS: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Count."}],
    "max_tokens": 4000,
    "ignore_eos": True,
}


def read_stream(url: str, lines: list[str], started: threading.Semaphore) -> None:
    with (
        httpx.Client(base_url=url, timeout=60) as http,
        http.stream("POST", "/v1/chat/completions", json=ENDLESS | {"stream": True}) as response,
    ):
        for line in filter(None, response.iter_lines()):
            lines.append(line)
            if len(lines) == 3:
                started.release()


def start_streams(daemon: Daemon, count: int) -> tuple[list[list[str]], list[threading.Thread]]:
    """Streams that have begun to give tokens."""
    started = threading.Semaphore(0)
    streams: list[list[str]] = [[] for _ in range(count)]
    threads = [
        threading.Thread(target=read_stream, args=(daemon.url, lines, started)) for lines in streams
    ]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert started.acquire(timeout=30)
    return streams, threads


def check_cut(lines: list[str], code: str) -> None:
    """The stream ended with one error event, and not as if it were complete."""
    errors = [line for line in lines if '"error"' in line]
    assert errors == lines[-1:], lines[-3:]
    error = json.loads(errors[0].removeprefix("data: "))["error"]
    assert error["code"] == code
    assert "data: [DONE]" not in lines


def check_answer(daemon: Daemon) -> None:
    case = golden.case("image_single")
    answer = daemon.chat(**request(case))
    assert answer["choices"][0]["token_ids"] == case["generated_ids"]
