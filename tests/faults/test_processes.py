"""Processes that die, clients that leave, operators who stop the daemon."""

from __future__ import annotations

import json
import random
import signal
import socket
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.e2e.conftest import EXACT
from tests.e2e.conversations import all_cases, messages
from tests.e2e.daemon import Daemon, running
from tests.e2e.streams import ENDLESS, check_answer, check_cut, read_stream, start_streams


def gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=10)
    return not alive


def asking(text: str, **fields: Any) -> dict[str, Any]:
    return ENDLESS | {"messages": [{"role": "user", "content": text}]} | fields


def test_a_killed_engine_ends_streams_and_comes_back() -> None:
    with running(*EXACT, "--max-num-seqs", "5") as daemon, ThreadPoolExecutor(2) as pool:

        def ask(body: dict[str, Any]) -> Future[httpx.Response]:
            return pool.submit(daemon.http.post, "/v1/chat/completions", json=body)

        streams, threads = start_streams(daemon, 4)
        plain = ask(asking("Kill!"))
        wait_until_running(daemon, 5)
        queued = ask(asking("Wait."))
        wait_until_running(daemon, 5, waiting=1)
        daemon.children()["engine"].kill()
        for thread in threads:
            thread.join(timeout=10)
            assert not thread.is_alive()
        for lines in streams:
            check_cut(lines, "engine_died")
        for code, response in (("engine_died", plain), ("engine_restarted", queued)):
            assert response.result().status_code == 503
            assert response.result().json()["error"]["code"] == code
        assert plain.result().headers["x-should-retry"] == "false"
        assert int(queued.result().headers["retry-after"]) > 0
        refused = daemon.http.post("/v1/chat/completions", json=ENDLESS)
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
        daemon.wait_until_ready()
        check_answer(daemon)

        again = ask(asking("Kill!", seed=5))
        wait_until_running(daemon, 1)
        daemon.children()["engine"].kill()
        assert again.result().json()["error"]["code"] == "engine_died"
        daemon.wait_until_ready()
        refused = ask(asking("Kill!", max_tokens=3)).result()
        assert (refused.status_code, refused.headers["x-should-retry"]) == (400, "false")
        assert refused.json()["error"]["code"] == "request_quarantined"
        check_answer(daemon)


def wait_until_running(daemon: Daemon, running: int, waiting: int = 0) -> None:
    deadline_s = time.monotonic() + 30
    while (
        daemon.gauge("internvl_requests_running") != running
        or daemon.gauge("internvl_requests_waiting") != waiting
    ):
        assert time.monotonic() < deadline_s, daemon.http.get("/metrics").text
        time.sleep(0.02)


def test_a_killed_api_process_leaves_no_request_behind() -> None:
    with running(*EXACT) as daemon:
        _, threads = start_streams_that_may_break(daemon, 3)
        daemon.children()["api"].kill()
        for thread in threads:
            thread.join(timeout=10)
        daemon.http.close()
        daemon.http = httpx.Client(
            base_url=daemon.url, timeout=60, transport=httpx.HTTPTransport(retries=20)
        )
        daemon.wait_until_ready()
        check_answer(daemon)
        daemon.wait_until_idle()


def start_streams_that_may_break(
    daemon: Daemon, count: int
) -> tuple[list[list[str]], list[threading.Thread]]:
    """Streams whose connection will be cut."""
    started = threading.Semaphore(0)
    streams: list[list[str]] = [[] for _ in range(count)]

    def read(lines: list[str]) -> None:
        with pytest.raises(httpx.TransportError):
            read_stream(daemon.url, lines, started)

    threads = [threading.Thread(target=read, args=(lines,)) for lines in streams]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert started.acquire(timeout=30)
    return streams, threads


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_every_process(signum: signal.Signals) -> None:
    with running(*EXACT) as daemon:
        children = list(daemon.children().values())
        assert len(children) == 2
        streams, threads = start_streams(daemon, 2)
        begin_s = time.monotonic()
        daemon.process.send_signal(signum)
        assert daemon.process.wait(timeout=10) == 0
        assert time.monotonic() - begin_s < 10
        assert gone(children)
        for thread in threads:
            thread.join(timeout=5)
        for lines in streams:
            check_cut(lines, "server_shutting_down")


def test_sigterm_lets_running_requests_finish() -> None:
    with running(*EXACT, "--drain-timeout-s", "60") as daemon:
        with ThreadPoolExecutor(1) as pool:
            body = ENDLESS | {"max_tokens": 300}
            answer = pool.submit(daemon.http.post, "/v1/chat/completions", json=body)
            while not daemon.gauge("internvl_requests_running"):
                time.sleep(0.02)
            daemon.process.send_signal(signal.SIGTERM)
            response = answer.result()
        assert response.status_code == 200
        assert response.json()["usage"]["completion_tokens"] == 300
        assert daemon.process.wait(timeout=10) == 0


def test_a_second_signal_ends_at_once() -> None:
    with running(*EXACT, "--drain-timeout-s", "60") as daemon:
        children = list(daemon.children().values())
        _, threads = start_streams_that_may_break(daemon, 2)
        daemon.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert daemon.process.poll() is None
        begin_s = time.monotonic()
        daemon.process.send_signal(signal.SIGTERM)
        daemon.process.wait(timeout=10)
        assert time.monotonic() - begin_s < 5
        assert gone(children)
        for thread in threads:
            thread.join(timeout=5)


def test_an_engine_that_stands_still_is_started_again() -> None:
    with running(*EXACT, "--step-timeout-s", "4") as daemon:
        streams, threads = start_streams(daemon, 2)
        engine = daemon.children()["engine"]
        engine.suspend()
        while daemon.http.get("/livez").status_code == 200:
            time.sleep(0.05)
        assert daemon.http.get("/readyz").status_code == 503
        for thread in threads:
            thread.join(timeout=20)
        for lines in streams:
            check_cut(lines, "engine_died")
        daemon.logged("engine has stood still")
        assert daemon.http.get("/livez").status_code == 200
        daemon.wait_until_ready()
        check_answer(daemon)


def test_children_do_not_outlive_a_killed_supervisor() -> None:
    with running(*EXACT) as daemon:
        children = list(daemon.children().values())
        daemon.process.kill()
        assert gone(children)


def test_an_engine_that_keeps_dying_ends_the_daemon() -> None:
    with running(*EXACT, "--max-restarts", "1") as daemon:
        for _ in range(2):
            engine = daemon.engine()
            engine.kill()
            engine.wait()
        assert daemon.process.wait(timeout=20) == 1
        daemon.logged("1 restarts in 600 s are too many")


def test_a_storm_of_disconnects_leaks_nothing(daemon: Daemon) -> None:
    """200 clients, streaming and plain, with and without pictures, gone at random moments."""
    chance = random.Random(3)
    bodies = [
        ENDLESS | {"messages": messages(case), "max_tokens": 200, "stream": stream}
        for case in all_cases()[:9]
        for stream in (True, False)
    ]

    def leave(patience_s: float, body: dict[str, Any]) -> None:
        payload = json.dumps(body).encode()
        host, port = daemon.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            head = (
                f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\n"
                f"content-type: application/json\r\ncontent-length: {len(payload)}\r\n\r\n"
            )
            connection.sendall(head.encode() + payload)
            time.sleep(patience_s)

    cancelled = daemon.gauge("internvl_cancellations_total")
    with ThreadPoolExecutor(40) as pool:
        clients = [
            pool.submit(leave, chance.uniform(0, 0.4), chance.choice(bodies)) for _ in range(200)
        ]
    for client in clients:
        client.result()
    daemon.wait_until_idle()
    assert daemon.gauge("internvl_cancellations_total") > cancelled
    check_answer(daemon)


def test_what_cannot_be_served_is_said_and_not_retried(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with Daemon(model=tmp_path) as daemon:
        assert daemon.process.wait(timeout=30) == 1
    assert "`model_type` is 'llama'" in daemon.log
    assert "started again" not in daemon.log
    assert "Traceback" not in daemon.log


def test_a_taken_port_is_said_at_once(daemon: Daemon) -> None:
    port = daemon.url.rsplit(":", 1)[1]
    with pytest.raises(AssertionError, match=f"cannot listen on 127.0.0.1, port {port}"):
        Daemon("--port", port)
