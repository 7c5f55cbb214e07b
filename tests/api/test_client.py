"""The engine client against an engine that speaks the real wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import msgspec
import pytest

from server.api.client import EngineClient, EngineState
from server.errors import ApiError
from server.in_flight import InFlight, fingerprint
from server.ipc import ApiEndpoint
from server.limits import Limits
from server.messages import Delta, FinishReason, Gauges, ImageRef, SamplingParams, Submit
from tests.api.fake_engine import READY, FakeEngine, says, silent

REQUEST = Submit(0, b"\1\0\0\0", [], SamplingParams(seed=7), 5, [7])
PATIENCE_S = 20.0


@asynccontextmanager
async def connected_client(run_dir: Path, max_open: int = 8) -> AsyncIterator[EngineClient]:
    with closing(ApiEndpoint(run_dir, "api-0")) as endpoint:
        client = EngineClient(endpoint, Limits(max_waiting_requests=max_open))
        client.start()
        try:
            yield client
        finally:
            await client.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.002)


async def is_ready(client: EngineClient) -> None:
    await until(lambda: client.state is EngineState.READY)


def test_is_ready_when_the_engine_says_so(tmp_path: Path) -> None:
    async def run() -> None:
        async with connected_client(tmp_path) as client:
            assert client.state is EngineState.LOADING
            with FakeEngine(tmp_path, ready=None) as engine:
                await until(lambda: engine.hellos == 1)
                assert client.state is EngineState.LOADING
                with pytest.raises(ApiError) as caught:
                    client.submit([REQUEST], [])
                assert (caught.value.status, caught.value.code) == (503, "model_loading")
                engine.become_ready()
                await is_ready(client)
                assert client.ready == READY

    asyncio.run(run())


def test_sends_requests_with_pictures_and_hands_back_the_deltas(tmp_path: Path) -> None:
    async def run() -> None:
        with FakeEngine(tmp_path, says([4], [5], cached_tokens=3)) as engine:
            async with connected_client(tmp_path) as client:
                await is_ready(client)
                images = [ImageRef(b"d" * 16, 0, 4)]
                request = Submit(0, b"\1\0\0\0", images, SamplingParams(seed=7), 5, [7])
                with client.submit([request], [b"pixels"]) as submission:
                    deltas = [d async for arrived in submission for _, d in arrived]
                assert [d.token_ids for d in deltas] == [[4], [5]]
                assert deltas[0].cached_tokens == 3
                received = engine.received[0]
                assert received.pictures == [b"pixels"]
                assert received.submit == Submit(
                    1, request.prompt, images, request.sampling, 5, [7]
                )
                assert client.latest.requests_running == 1

    asyncio.run(run())


def test_ids_are_never_used_twice(tmp_path: Path) -> None:
    async def run() -> None:
        with FakeEngine(tmp_path) as engine:
            async with connected_client(tmp_path) as client:
                await is_ready(client)
                for _ in range(3):
                    with client.submit([REQUEST, REQUEST], []):
                        pass
                await until(lambda: len(engine.cancelled) == 6)
                assert [r.submit.id for r in engine.received] == [1, 2, 3, 4, 5, 6]
                assert engine.cancelled == [1, 2, 3, 4, 5, 6]

    asyncio.run(run())


def test_leaving_in_a_cancelled_task_cancels_in_the_engine(tmp_path: Path) -> None:
    async def run() -> None:
        with FakeEngine(tmp_path) as engine:
            async with connected_client(tmp_path) as client:
                await is_ready(client)

                async def consume() -> None:
                    with client.submit([REQUEST], []) as submission:
                        async for _ in submission:
                            pass

                task = asyncio.create_task(consume())
                await until(lambda: len(engine.received) == 1)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                await until(lambda: engine.cancelled == [1])

    asyncio.run(run())


def test_a_finished_choice_is_not_cancelled(tmp_path: Path) -> None:
    async def run() -> None:
        with FakeEngine(tmp_path, says([4])) as engine:
            async with connected_client(tmp_path) as client:
                await is_ready(client)
                with client.submit([REQUEST], []) as submission:
                    assert [a async for a in submission]
                engine.script = silent
                with client.submit([REQUEST], []):
                    pass
                # The wire keeps the order: a cancel of the first would be here as well.
                await until(lambda: engine.cancelled == [2])

    asyncio.run(run())


def test_news_of_a_cancelled_choice_are_dropped(tmp_path: Path) -> None:
    async def run() -> None:
        with FakeEngine(tmp_path) as engine:
            async with connected_client(tmp_path) as client:
                await is_ready(client)
                with client.submit([REQUEST], []):
                    pass
                await until(lambda: engine.cancelled == [1])
                late = Gauges(steps_total=99)
                engine.send(Delta(1, [5]), Delta(1, [], FinishReason.CANCELLED), gauges=late)
                await until(lambda: client.latest == late)
                assert client.state is EngineState.READY

    asyncio.run(run())


def test_too_many_open_choices_are_refused_until_some_end(tmp_path: Path) -> None:
    async def run() -> None:
        with FakeEngine(tmp_path):
            async with connected_client(tmp_path, max_open=3) as client:
                await is_ready(client)
                first = client.submit([REQUEST, REQUEST], [])
                with pytest.raises(ApiError) as caught:
                    client.submit([REQUEST, REQUEST], [])
                assert caught.value.status == 429
                assert caught.value.code == "rate_limit_exceeded"
                assert caught.value.headers["retry-after"] in {"2", "3"}
                first.close()
                client.submit([REQUEST, REQUEST], []).close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("delta", "status", "code", "message"),
    [
        (Delta(1, [], FinishReason.ERROR, error="No room."), 500, "engine_error", "No room."),
        (Delta(1, [], FinishReason.CANCELLED), 503, "server_shutting_down", "shutting down"),
    ],
)
def test_an_end_that_is_no_answer_becomes_an_error(
    tmp_path: Path, delta: Delta, status: int, code: str, message: str
) -> None:
    async def run() -> None:
        with FakeEngine(tmp_path) as engine:
            async with connected_client(tmp_path) as client:
                await is_ready(client)
                with client.submit([REQUEST, REQUEST], []) as submission:
                    engine.send(delta)
                    with pytest.raises(ApiError) as caught:
                        await anext(submission)
                assert (caught.value.status, caught.value.code) == (status, code)
                assert message in caught.value.message
                await until(lambda: engine.cancelled == [2])

    asyncio.run(run())


def test_losing_the_engine_fails_every_request_once_and_the_next_engine_serves(
    tmp_path: Path,
) -> None:
    async def run() -> None:
        async with connected_client(tmp_path) as client:
            with FakeEngine(tmp_path) as engine:
                await is_ready(client)
                submissions = [client.submit([REQUEST], []) for _ in range(3)]
                await until(lambda: len(engine.received) == 3)
                engine.send()
                await until(lambda: client.latest.requests_running == 1)
            for submission in submissions:
                with submission, pytest.raises(ApiError) as caught:
                    await asyncio.wait_for(anext(submission), PATIENCE_S)
                assert (caught.value.status, caught.value.code) == (503, "engine_restarted")
            assert client.state is EngineState.LOST
            assert client.latest == Gauges()
            with FakeEngine(tmp_path, says([4])) as engine:
                await is_ready(client)
                with client.submit([REQUEST], []) as submission:
                    assert len([a async for a in submission]) == 1
                # Nothing that was meant for the old engine reaches the new one.
                assert [r.submit.id for r in engine.received] == [4]
                assert engine.cancelled == []

    asyncio.run(run())


def test_what_was_in_the_engine_when_it_died_is_refused_after_the_second_death(
    tmp_path: Path,
) -> None:
    other = msgspec.structs.replace(REQUEST, prompt=b"\2\0\0\0")

    async def run() -> None:
        async with connected_client(tmp_path) as client:
            with closing(InFlight(tmp_path)) as in_flight:
                for _ in range(2):
                    with FakeEngine(tmp_path):
                        await is_ready(client)
                        submissions = [client.submit([r], []) for r in (REQUEST, other)]
                        in_flight.note([fingerprint(REQUEST)])
                    failures = []
                    for submission in submissions:
                        with submission, pytest.raises(ApiError) as caught:
                            await asyncio.wait_for(anext(submission), PATIENCE_S)
                        failures.append(caught.value)
                    assert [f.code for f in failures] == ["engine_died", "engine_restarted"]
                    assert failures[0].headers == {"x-should-retry": "false"}
                    assert "x-should-retry" not in failures[1].headers
                    assert int(failures[1].headers["retry-after"]) > 0
            with FakeEngine(tmp_path, says([4])):
                await is_ready(client)
                with pytest.raises(ApiError) as caught:
                    client.submit([other, REQUEST], [])
                assert (caught.value.status, caught.value.code) == (400, "request_quarantined")
                assert caught.value.headers == {"x-should-retry": "false"}
                with client.submit([other], []) as submission:
                    assert len([a async for a in submission]) == 1

    asyncio.run(run())


def test_draining_ends_what_is_open_and_refuses_the_rest(tmp_path: Path) -> None:
    async def run() -> None:
        with FakeEngine(tmp_path) as engine:
            async with connected_client(tmp_path) as client:
                await is_ready(client)
                with client.submit([REQUEST], []) as submission:
                    client.drain()
                    with pytest.raises(ApiError) as caught:
                        await anext(submission)
                assert caught.value.code == "server_shutting_down"
                assert client.state is EngineState.DRAINING
                with pytest.raises(ApiError, match="shutting down"):
                    client.submit([REQUEST], [])
                await until(lambda: engine.cancelled == [1])

    asyncio.run(run())


def test_a_broken_connection_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        monkeypatch.setattr("server.api.client.RETRY_S", 0.01)
        failures = iter([OSError("no descriptors")])
        connected = ApiEndpoint.connected

        async def failing(endpoint: ApiEndpoint) -> None:
            for failure in failures:
                raise failure
            await connected(endpoint)

        monkeypatch.setattr(ApiEndpoint, "connected", failing)
        with FakeEngine(tmp_path):
            async with connected_client(tmp_path) as client:
                await is_ready(client)

    asyncio.run(run())
