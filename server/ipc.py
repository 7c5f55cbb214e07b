"""The wire between API processes and the engine: ZeroMQ over a unix socket, msgspec frames.

One ROUTER in the engine, one DEALER in each API process. The first frame is a `messages` struct;
pictures follow as raw frames that are never copied on the way. The socket lives in a directory that
only this user can enter. There is no pickle on any socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
import zmq
import zmq.asyncio

from server.messages import ToApi, ToEngine

T = TypeVar("T")

log = logging.getLogger(__name__)

QUEUE_FRAMES_MAX = 0
"""ZeroMQ's own queues are unbounded: the API bounds what is open, and a dropped frame would lose a
request."""

MESSAGES_MAX = 4
"""That an API process takes in at once. One that lags saves three writes of four by it, and with
hundreds of streams each still gets its turn every 10 ms or so."""


class Codec(Generic[T]):
    """Encodes any message, decodes those of one direction and rejects all others."""

    def __init__(self, inbound: type[T]) -> None:
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(inbound)

    def encode(self, message: ToEngine | ToApi) -> bytes:
        return self._encoder.encode(message)

    def decode(self, frame: bytes | memoryview) -> T:
        return self._decoder.decode(frame)


def engine_address(run_dir: Path) -> str:
    return f"ipc://{run_dir}/engine.sock"


class EngineEndpoint:
    """The engine's end. Peers are the names that API processes chose as their identity."""

    def __init__(self, run_dir: Path) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self._socket.rcvhwm = self._socket.sndhwm = QUEUE_FRAMES_MAX
        # An API process that was restarted takes over the name of the one that died.
        self._socket.router_handover = True
        self._socket.bind(engine_address(run_dir))
        self._codec: Codec[ToEngine] = Codec(ToEngine)  # type: ignore[arg-type]

    def receive(
        self, wait_s: float | None = 0.0
    ) -> Iterator[tuple[bytes, ToEngine, Sequence[memoryview]]]:
        """Yields (peer, message, picture frames) of everything that has arrived, after waiting up
        to `wait_s` seconds (None: without end) for the first."""
        if not self._socket.poll(None if wait_s is None else int(wait_s * 1000)):
            return
        while True:
            try:
                peer, head, *pictures = self._socket.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                return
            try:
                message = self._codec.decode(head.buffer)
            except msgspec.MsgspecError as error:
                log.error("dropped a message of %r: %s", peer.bytes, error)
                continue
            yield peer.bytes, message, [frame.buffer for frame in pictures]

    def send(self, peer: bytes, message: ToApi) -> None:
        # An unknown peer is an API process that died; the ROUTER drops the message by itself.
        self._socket.send_multipart([peer, self._codec.encode(message)])

    def close(self) -> None:
        self._socket.close()
        self._context.term()


class ApiEndpoint:
    """An API process's end. It outlives engines: `lost` tells when one went away.

    Everything is asked of it within one event loop. ZeroMQ's own sockets for asyncio take twice the
    time for a message: here the loop watches the descriptor, and messages are read where they are
    awaited.
    """

    def __init__(self, run_dir: Path, name: str) -> None:
        self.run_dir = run_dir
        self._context = zmq.Context()
        self._address = engine_address(run_dir)
        self._name = name.encode()
        self._codec: Codec[ToApi] = Codec(ToApi)  # type: ignore[arg-type]
        self._stirred = asyncio.Event()
        self._watching: asyncio.AbstractEventLoop | None = None
        self._connect()

    def _connect(self) -> None:
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.rcvhwm = self._socket.sndhwm = QUEUE_FRAMES_MAX
        self._socket.identity = self._name
        self._socket.reconnect_ivl = 50
        # Nothing is queued for an engine that is not there.
        self._socket.immediate = True
        self._descriptor = int(self._socket.getsockopt(zmq.FD))
        # A name that the socket before this one, which closes in its own time, does not hold.
        name = f"inproc://monitor-{self._descriptor}"
        self._socket.monitor(name, zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        self._monitor = zmq.asyncio.Context.shadow(self._context).socket(zmq.PAIR)
        self._monitor.connect(name)
        self._socket.connect(self._address)

    def reconnect(self) -> None:
        """Forgets the old connection with everything that is queued on it."""
        self._close_socket()
        self._connect()

    async def connected(self) -> None:
        """Returns when an engine has accepted the connection."""
        while await self._next_event() != zmq.EVENT_HANDSHAKE_SUCCEEDED:
            pass

    async def lost(self) -> None:
        """Returns when the connection to the engine has ended."""
        while await self._next_event() != zmq.EVENT_DISCONNECTED:
            pass

    async def _next_event(self) -> int:
        # A monitor frame is a 16-bit event number, a 32-bit value, then the address.
        event, _address = await self._monitor.recv_multipart()
        return int.from_bytes(event[:2], "little")

    async def send(self, message: ToEngine, pictures: Sequence[bytes] = ()) -> None:
        frames = [self._codec.encode(message), *pictures]
        while True:
            try:
                self._socket.send_multipart(frames, zmq.NOBLOCK, copy=False)
            except zmq.Again:
                await self._stir()
            else:
                break
        if self._events() & zmq.POLLIN:
            self._stirred.set()  # sending has silenced the descriptor

    async def receive(self) -> list[ToApi]:
        """What has arrived, after waiting for the first."""
        while not (messages := self._take()):
            await self._stir()
        return messages

    def _take(self) -> list[ToApi]:
        messages: list[ToApi] = []
        with contextlib.suppress(zmq.Again):
            while len(messages) < MESSAGES_MAX:
                messages.append(self._codec.decode(self._socket.recv(zmq.NOBLOCK)))
        return messages

    async def _stir(self) -> None:
        """Returns when something has changed since the last failed attempt."""
        if self._watching is None:
            self._watching = asyncio.get_running_loop()
            self._watching.add_reader(self._descriptor, self._look)
        self._stirred.clear()
        await self._stirred.wait()

    def _look(self) -> None:
        # The descriptor stays readable until somebody asks what has happened.
        if self._events():
            self._stirred.set()

    def _events(self) -> int:
        return int(self._socket.getsockopt(zmq.EVENTS))

    def _close_socket(self) -> None:
        if self._watching is not None:
            self._watching.remove_reader(self._descriptor)
            self._watching = None
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close()

    def close(self) -> None:
        self._close_socket()
        self._context.term()
