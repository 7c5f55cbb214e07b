from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from server.ipc import ApiEndpoint, EngineEndpoint, engine_address
from server.messages import Cancel, Delta, Gauges, Hello, ImageRef, Outputs, SamplingParams, Submit

SUBMIT = Submit(
    id=3,
    prompt=b"\1\0\0\0",
    images=[ImageRef(b"d" * 16, 0, 4)],
    sampling=SamplingParams(seed=2**63 - 1),
    max_tokens=5,
    stop_ids=[7],
)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineEndpoint]:
    endpoint = EngineEndpoint(tmp_path)
    yield endpoint
    endpoint.close()


def test_messages_and_pictures_arrive_as_they_were_sent(
    tmp_path: Path, engine: EngineEndpoint
) -> None:
    async def talk() -> object:
        api = ApiEndpoint(tmp_path, "api-0")
        await api.connected()
        await api.send(SUBMIT, [b"pixels"])
        await api.send(Cancel(3))
        answers = await api.receive()
        while len(answers) < 2:
            answers += await api.receive()
        api.close()
        return answers

    received: list[tuple[bytes, object, list[bytes]]] = []

    def serve() -> None:
        while len(received) < 2:
            for peer, message, pictures in engine.receive(wait_s=5):
                received.append((peer, message, [bytes(picture) for picture in pictures]))
        for token in (1, 2):
            engine.send(b"api-0", Outputs([Delta(3, [token])], Gauges()))

    thread = threading.Thread(target=serve)
    thread.start()
    answers = asyncio.run(asyncio.wait_for(talk(), 10))
    thread.join()
    assert received == [(b"api-0", SUBMIT, [b"pixels"]), (b"api-0", Cancel(3), [])]
    assert answers == [Outputs([Delta(3, [token])], Gauges()) for token in (1, 2)]


def test_an_idle_engine_does_not_wait_when_told_so(engine: EngineEndpoint) -> None:
    assert list(engine.receive(wait_s=0)) == []


def test_garbage_is_dropped_and_what_follows_is_read(
    tmp_path: Path, engine: EngineEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(engine_address(tmp_path))
        socket.send(b"\xc1garbage")
        socket.send(b"\x91\xa7Unknown")
        socket.send(b"\x91\xa5Hello")
        received: list[object] = []
        while not received:
            received += [message for _, message, _ in engine.receive(wait_s=5)]
    assert received == [Hello()]
    assert caplog.text.count("dropped a message") == 2


def test_the_loss_of_the_engine_is_noticed_and_the_next_one_found(tmp_path: Path) -> None:
    async def outlive() -> None:
        api = ApiEndpoint(tmp_path, "api-0")
        for _ in range(2):
            engine = EngineEndpoint(tmp_path)
            await api.connected()
            engine.close()
            await api.lost()
            api.reconnect()
        api.close()

    asyncio.run(asyncio.wait_for(outlive(), 10))


def test_a_message_to_a_peer_that_is_gone_is_dropped(engine: EngineEndpoint) -> None:
    engine.send(b"nobody", Outputs([], Gauges()))
