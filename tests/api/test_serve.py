"""The process as a whole: the engine comes, dies and comes back; the server shuts down."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.api.serve import STUCK_CLIENT_S, Stop, serve
from server.errors import CheckpointError
from server.heartbeat import Heartbeat
from server.messages import Delta, FinishReason
from server.settings import Settings
from tests.api.fake_engine import FakeEngine, says, until
from tests.api.harness import Background, RunningApi, chat
from tests.golden import CHECKPOINT


def streaming(engine: FakeEngine) -> None:
    """Every request gets one token and no end."""
    engine.script = lambda submit: [Delta(submit.id, [400])]


def last_event(lines: Iterator[str]) -> Any:
    *_, last = (line for line in lines if line)
    return json.loads(last.removeprefix("data: "))


def test_loading_then_ready(tmp_path: Path) -> None:
    with RunningApi(tmp_path) as api:
        for path, status in (("/livez", 200), ("/health", 200), ("/readyz", 503)):
            assert api.client.get(path).status_code == status
        refused = api.post(chat())
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "model_loading"
        assert int(refused.headers["retry-after"]) > 0
        with FakeEngine(tmp_path, says([5])):
            api.wait_until_ready()
            assert api.post(chat()).status_code == 200


def test_the_engine_dies_and_the_next_one_serves(tmp_path: Path) -> None:
    with RunningApi(tmp_path) as api:
        with FakeEngine(tmp_path) as engine:
            api.wait_until_ready()
            streaming(engine)
            with api.stream(chat()) as response:
                lines = response.iter_lines()
                assert next(lines)
                engine.__exit__()
                assert last_event(lines)["error"]["code"] == "engine_restarted"
        until(lambda: api.client.get("/health").status_code == 503)
        assert api.client.get("/readyz").status_code == 503
        assert api.client.get("/livez").status_code == 200
        assert api.post(chat()).status_code == 503
        assert api.metric("internvl_requests_running") == 0
        with FakeEngine(tmp_path, says([5])):
            api.wait_until_ready()
            assert api.client.get("/health").status_code == 200
            assert api.post(chat()).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_the_engine_dies_before_the_first_token(tmp_path: Path, stream: bool) -> None:
    with RunningApi(tmp_path) as api:
        engine = FakeEngine(tmp_path)
        with engine:
            api.wait_until_ready()
            with Background(api, chat(stream=stream)) as request:
                engine.wait_for_requests()
                engine.__exit__()
                response = request.response()
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "engine_restarted"
        assert response.headers["retry-after"] == "2"


def test_shutdown_tells_every_open_request(tmp_path: Path) -> None:
    with FakeEngine(tmp_path) as engine, RunningApi(tmp_path) as api:
        api.wait_until_ready()
        with Background(api, chat()) as plain:
            engine.wait_for_requests()
            streaming(engine)
            with api.stream(chat()) as response:
                lines = response.iter_lines()
                assert next(lines)
                began_at = time.monotonic()
                api.begin_shutdown()
                assert last_event(lines)["error"]["code"] == "server_shutting_down"
            refused = plain.response()
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "server_shutting_down"
        until(lambda: api.ended)
        assert time.monotonic() - began_at < 3
        assert len(engine.wait_for_cancels(2)) == 2
        with pytest.raises(httpx.TransportError):
            api.client.get("/livez")


def test_a_client_that_does_not_read_cannot_delay_the_end(tmp_path: Path) -> None:
    api = RunningApi(tmp_path)
    api.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with FakeEngine(tmp_path) as engine, api:
        api.wait_until_ready()
        engine.script = lambda submit: [Delta(submit.id, [400] * 1000) for _ in range(200)]
        body = json.dumps(chat(stream=True, return_token_ids=True)).encode()
        with socket.socket() as wire:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            wire.connect(("127.0.0.1", api.port))
            wire.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
                b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
                % (len(body), body)
            )
            engine.wait_for_requests()
            time.sleep(0.5)
            began_at = time.monotonic()
            api.begin_shutdown()
            until(lambda: api.ended)
            # Shorter would mean that the wire had swallowed the whole stream.
            assert STUCK_CLIENT_S < time.monotonic() - began_at < STUCK_CLIENT_S + 4


def test_a_slow_first_token_does_not_hold_up_the_headers(tmp_path: Path) -> None:
    with FakeEngine(tmp_path) as engine, RunningApi(tmp_path, keep_alive_comment_s=0.05) as api:
        api.wait_until_ready()
        with api.stream(chat()) as response:
            assert response.status_code == 200
            lines = response.iter_lines()
            assert '"role":"assistant"' in next(lines)
            assert next(line for line in lines if line) == ": keep-alive"
            submit = engine.wait_for_requests()[0].submit
            engine.send(Delta(submit.id, [400], FinishReason.LENGTH))
            *_, last = (line for line in lines if line)
            assert last == "data: [DONE]"


def test_chunks_do_not_wait_for_acknowledgements(tmp_path: Path) -> None:
    with RunningApi(tmp_path) as api:
        assert api.listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def test_too_many_open_choices(tmp_path: Path) -> None:
    with (
        FakeEngine(tmp_path) as engine,
        RunningApi(tmp_path, max_waiting_requests=2) as api,
    ):
        api.wait_until_ready()
        with Background(api, chat(n=2)) as open_one:
            engine.wait_for_requests(2)
            refused = api.post(chat())
            assert refused.status_code == 429
            assert refused.json()["error"]["type"] == "rate_limit_error"
            assert refused.headers["retry-after"]
            for received in engine.received:
                engine.send(Delta(received.submit.id, [5], FinishReason.LENGTH))
            assert open_one.response().status_code == 200
        engine.script = says([5])
        assert api.post(chat()).status_code == 200


def test_a_folder_that_cannot_be_served_is_said_so(tmp_path: Path) -> None:
    api = RunningApi(tmp_path, checkpoint=tmp_path)
    with pytest.raises(CheckpointError):
        api.__enter__()
    api.close()


def test_a_drain_lets_what_is_open_end_and_still_answers(tmp_path: Path) -> None:
    with FakeEngine(tmp_path) as engine, RunningApi(tmp_path, drain_grace_s=0.5) as api:
        api.wait_until_ready()
        with Background(api, chat()) as request:
            submit = engine.wait_for_requests()[0].submit
            api.begin_drain()
            until(lambda: api.client.get("/readyz").status_code == 503)
            engine.script = says([5])
            answered = api.post(chat())
            assert (answered.status_code, answered.headers["connection"]) == (200, "close")
            until(lambda: refuses_connections(api))
            assert not api.ended
            engine.send(Delta(submit.id, [5], FinishReason.LENGTH))
            assert request.response().status_code == 200
        until(lambda: api.ended)


def refuses_connections(api: RunningApi) -> bool:
    try:
        socket.create_connection(("127.0.0.1", api.port), timeout=1).close()
    except OSError:
        return True
    return False


def test_a_drain_does_not_last_for_ever(tmp_path: Path) -> None:
    with FakeEngine(tmp_path) as engine, RunningApi(tmp_path, drain_timeout_s=0.3) as api:
        api.wait_until_ready()
        with Background(api, chat()) as request:
            engine.wait_for_requests()
            api.begin_drain()
            refused = request.response()
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "server_shutting_down"
        until(lambda: api.ended)


def test_a_drain_ends_a_process_that_is_being_started(tmp_path: Path) -> None:
    settings = Settings(model=str(CHECKPOINT), api_workers=2, drain_grace_s=0)
    listener = socket.create_server(("127.0.0.1", 0))

    async def run() -> None:
        stop = Stop()
        stop.drain.set()
        process = serve(settings, CHECKPOINT, listener, run_dir=tmp_path, name="api-0", stop=stop)
        await asyncio.wait_for(process, 10)

    with Heartbeat(tmp_path) as heartbeat, listener:
        heartbeat.beat()  # so that it waits for the engine
        asyncio.run(run())


def test_a_shutdown_cuts_a_drain_short(tmp_path: Path) -> None:
    with FakeEngine(tmp_path) as engine, RunningApi(tmp_path) as api:
        api.wait_until_ready()
        with Background(api, chat()) as request:
            engine.wait_for_requests()
            api.begin_drain()
            until(lambda: api.client.get("/readyz").status_code == 503)
            api.begin_shutdown()
            assert request.response().json()["error"]["code"] == "server_shutting_down"
