"""Several API processes on one port: all are used, and one that dies is no concern of others."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import psutil
import pytest

from tests.e2e.daemon import MODEL, START_S, Daemon

WORKERS = 2
ASK: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
FLAGS = ("--load-format", "null", "--null-step-ms", "20", "--max-model-len", "512")
TOKENS = 200
"""Of streams that something happens to; they take four seconds."""

pytestmark = pytest.mark.timeout(300)
"""Three processes start, and one starts again."""


@contextmanager
def workers(*flags: str) -> Iterator[Daemon]:
    with Daemon(*FLAGS, "--api-workers", str(WORKERS), *flags) as daemon:
        daemon.wait_until_ready()
        until_all_serve(daemon)
        yield daemon


def until_all_serve(daemon: Daemon) -> None:
    deadline_s = time.monotonic() + START_S
    while not all(connected(daemon, place) for place in range(WORKERS)):
        assert time.monotonic() < deadline_s, daemon.log
        time.sleep(0.05)


def connected(daemon: Daemon, place: int) -> bool:
    """Whether the process that was started last in this place serves."""
    log = daemon.log
    return log.rfind(f"api-{place} engine ready") > log.rfind(f"api-{place} started")


def process_of(daemon: Daemon, place: int) -> psutil.Process:
    return psutil.Process(int(re.findall(rf"api-{place} started \(pid (\d+)\)", daemon.log)[-1]))


class Clients:
    """A connection to each process: responses tell by their ids who made them."""

    def __init__(self, daemon: Daemon, owned: ExitStack) -> None:
        self._clients: dict[int, httpx.Client] = {}
        deadline_s = time.monotonic() + 30
        while len(self._clients) < WORKERS:
            assert time.monotonic() < deadline_s, "not every process gets connections"
            http = owned.enter_context(httpx.Client(base_url=daemon.url, timeout=60))
            self._clients[place_of(respond(http))] = http

    def __getitem__(self, place: int) -> httpx.Client:
        return self._clients[place]


def respond(http: httpx.Client, **fields: Any) -> str:
    """Id of a new response."""
    body = {"model": MODEL, "input": "Hi", "max_output_tokens": 1, **fields}
    answer = http.post("/v1/responses", json=body)
    assert answer.status_code == 200, answer.text
    id: str = answer.json()["id"]
    return id


def place_of(id: str) -> int:
    return int(id.split("_")[1])


def stream(http: httpx.Client) -> list[str]:
    """The lines of a stream that has begun; the rest is read by who iterates."""
    body = ASK | {"stream": True, "max_tokens": TOKENS}
    with http.stream("POST", "/v1/chat/completions", json=body) as response:
        return [line for line in response.iter_lines() if line]


def begun(pool: ThreadPoolExecutor, daemon: Daemon, *clients: httpx.Client) -> list[Future[Any]]:
    """Streams over these connections that the engine works on."""
    futures = [pool.submit(stream, http) for http in clients]
    deadline_s = time.monotonic() + 30
    with httpx.Client(base_url=daemon.url, timeout=60) as http:
        while running(http) < len(clients):
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
    return futures


def running(http: httpx.Client) -> float:
    return metrics(http)["internvl_requests_running"]


def metrics(http: httpx.Client) -> dict[str, float]:
    lines = http.get("/metrics").text.splitlines()
    samples = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in samples}


def is_complete(lines: list[str]) -> bool:
    *_, last, end = lines
    finish = json.loads(last.removeprefix("data: "))["choices"][0]["finish_reason"]
    return (finish, end) == ("length", "data: [DONE]")


def test_one_dies_and_the_others_go_on() -> None:
    with workers() as daemon, ThreadPoolExecutor(4) as pool, ExitStack() as owned:
        clients = Clients(daemon, owned)
        kept = [respond(clients[place]) for place in range(WORKERS)]
        for place in range(WORKERS):
            id = respond(clients[place], previous_response_id=kept[1 - place])
            assert place_of(id) == place
        before = metrics(clients[0])
        counted = "internvl_request_seconds_count"
        assert metrics(clients[1])[counted] == before[counted] >= 2 * WORKERS

        harmed, unharmed = begun(pool, daemon, clients[1], clients[0])
        process_of(daemon, 1).kill()
        with pytest.raises(httpx.TransportError):
            harmed.result()
        # Nobody waits for the one that is gone.
        for _ in range(10):
            assert httpx.get(f"{daemon.url}/readyz").status_code == 200
        assert is_complete(unharmed.result())

        deadline_s = time.monotonic() + START_S
        while not connected(daemon, 1):
            assert time.monotonic() < deadline_s, daemon.log
            time.sleep(0.05)
        clients = Clients(daemon, owned)
        lost = {"model": MODEL, "input": "Hi", "previous_response_id": kept[1]}
        for place in range(WORKERS):
            refused = clients[place].post("/v1/responses", json=lost)
            assert refused.json()["error"]["code"] == "previous_response_not_found"
            assert respond(clients[place], previous_response_id=kept[0])
        for place in range(WORKERS):
            after = metrics(clients[place])
            assert after["internvl_restarts_total"] == 1
            assert all(
                after[name] >= count
                for name, count in before.items()
                if name.endswith(("_total", "_count", "_sum")) or "_bucket" in name
            )
            assert after["internvl_requests_running"] == 0, "nobody waits for what was cut"
        for place in range(WORKERS):
            daemon.logged(f"api-{place} response req-")


def test_one_that_stands_still_is_started_again() -> None:
    with workers("--step-timeout-s", "3") as daemon:
        stopped = process_of(daemon, 1)
        stopped.suspend()
        stopped.wait(timeout=START_S)
        daemon.logged("api-1 has stood still")
        until_all_serve(daemon)
        assert "api-0 (pid" not in daemon.log, "the other one went on"


def test_a_drain_lets_every_process_finish() -> None:
    with workers("--drain-timeout-s", "60") as daemon:
        with ThreadPoolExecutor(4) as pool, ExitStack() as owned:
            clients = Clients(daemon, owned)
            streams = begun(pool, daemon, clients[0], clients[1])
            daemon.process.send_signal(signal.SIGTERM)
            assert all(is_complete(one.result()) for one in streams)
        assert daemon.process.wait(timeout=20) == 0
        assert "killed" not in daemon.log
