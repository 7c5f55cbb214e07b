"""Two daemons behind nginx are replaced one after the other under load: no request fails.

nginx is told what docs/operations.md tells operators: a daemon that refuses, or says 503 before it
has answered anything, is left for the next one.
"""

from __future__ import annotations

import itertools
import json
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.daemon import MODEL, Daemon, image_part, text_part
from tests.proxy import free_port, nginx

REQUESTS = 1000
CLIENTS = 6
DIRECTIVES = (
    "proxy_http_version 1.1; proxy_buffering off; proxy_read_timeout 600s; "
    "client_max_body_size 64m; "
    "proxy_next_upstream error http_503 non_idempotent;"
)

FLAGS = ("--max-num-seqs", "8", "--drain-timeout-s", "60")


def start(port: int) -> Daemon:
    daemon = Daemon(*FLAGS, "--port", str(port))
    daemon.wait_until_ready()
    return daemon


def body(number: int) -> dict[str, Any]:
    content = [text_part(f"Number {number}?")]
    if number % 5 == 0:
        content.append(image_part("rgb_square.png"))
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 1 + number % 17,
        "ignore_eos": True,
        "stream": number % 2 == 0,
    }


def failure(http: httpx.Client, number: int) -> str | None:
    """What went wrong with a request; None where all of its answer came."""
    asked = body(number)
    try:
        response = http.post("/v1/chat/completions", json=asked)
    except httpx.HTTPError as error:
        return repr(error)
    if response.status_code != 200:
        return f"{response.status_code} {response.text[:200]}"
    if asked["stream"]:
        *_, last, end = filter(None, response.text.splitlines())
        finish = json.loads(last.removeprefix("data: "))["choices"][0]["finish_reason"]
        return None if (finish, end) == ("length", "data: [DONE]") else f"{last} {end}"
    answer = response.json()
    tokens: int = answer["usage"]["completion_tokens"]
    return None if tokens == asked["max_tokens"] else f"{tokens} tokens"


class Load:
    """Clients that ask until told to stop, and at least `REQUESTS` times."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._numbers = itertools.count()
        self.restarted = threading.Event()
        self.answered = 0
        self.failures: list[str] = []

    def run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=120) as http:
            while (number := next(self._numbers)) < REQUESTS or not self.restarted.is_set():
                if (what := failure(http, number)) is None:
                    self.answered += 1
                else:
                    self.failures.append(f"{number}: {what}")


@contextmanager
def two_daemons() -> Iterator[list[Daemon]]:
    """Tests may put others in their places."""
    daemons: list[Daemon] = []
    try:
        for _ in range(2):
            daemons.append(start(free_port()))
        yield daemons
    finally:
        for daemon in daemons:
            daemon.stop()


def replace(daemons: list[Daemon], index: int) -> None:
    """Ends a daemon as a service manager does, and starts another one in its place."""
    old = daemons[index]
    port = int(old.url.rpartition(":")[2])
    old.process.send_signal(signal.SIGTERM)
    assert old.process.wait(timeout=90) == 0, old.log
    old.stop()
    daemons[index] = start(port)


@pytest.mark.timeout(400)
def test_no_request_fails(tmp_path: Path) -> None:
    with two_daemons() as daemons:
        with nginx(tmp_path, [daemon.url for daemon in daemons], DIRECTIVES) as url:
            load = Load(url)
            with ThreadPoolExecutor(CLIENTS) as pool:
                clients = [pool.submit(load.run) for _ in range(CLIENTS)]
                try:
                    for index in range(2):
                        begun_with = load.answered
                        while load.answered < begun_with + 100:
                            time.sleep(0.05)
                        replace(daemons, index)
                finally:
                    load.restarted.set()
                for client in clients:
                    client.result()
        assert load.failures == []
        assert load.answered >= REQUESTS
