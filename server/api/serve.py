"""Runs the API on listening sockets until it is told to stop.

Signals belong to the process that calls this. A drain lets what is open end, and still answers
what comes; a shutdown tells every open request so within a moment, and a client that does not read
cannot delay the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from server.api.app import create_app, create_operations_app
from server.api.client import EngineClient
from server.api.protocol import GuardedH11Protocol
from server.api.service import Service
from server.board import Board, Tally
from server.heartbeat import TURN_S, Heartbeat
from server.ipc import ApiEndpoint
from server.limits import Limits
from server.settings import Settings

STUCK_CLIENT_S = 1
"""How long connections may take to end after the shutdown began; then they are cut."""

DRAIN_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Stop:
    """How whoever runs the server ends it."""

    drain: asyncio.Event = field(default_factory=asyncio.Event)
    """Finish what is open first, within --drain-timeout-s."""
    now: asyncio.Event = field(default_factory=asyncio.Event)


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def stop_listening(self) -> None:
        """Connections that exist go on. A server that is being started has none, and does not
        listen."""
        for server in getattr(self, "servers", ()):
            server.close()


async def serve(
    settings: Settings,
    checkpoint: Path,
    listener: socket.socket,
    *,
    run_dir: Path,
    name: str,
    stop: Stop,
    place: int = 0,
    restarts: int = 0,
    operations_listener: socket.socket | None = None,
) -> None:
    """Serves until told to stop, then ends what is open and returns.

    Args:
        checkpoint: folder of the served model; only its configuration and tokenizer are read.
        listener: bound socket of this process alone; it is closed at the end.
        run_dir: where the engine's socket is or will be.
        name: of this process towards the engine; unique among the API processes.
        place: of this process among them.
        restarts: how many of the daemon's processes were started again so far.
        operations_listener: bound socket for what operators ask, which is then not public.

    Raises:
        CheckpointError: the folder cannot be served.
        StartupError: the file of keys cannot be used.
    """
    # Inherited by accepted connections. asyncio sets it only where the listener names its protocol,
    # and without it every chunk of a stream waits for the client's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with (
        contextlib.closing(ApiEndpoint(run_dir, name)) as endpoint,
        Heartbeat(run_dir) as heartbeat,
    ):
        board = Board.open(run_dir, settings.api_workers, place)
        client = EngineClient(endpoint, settings, restarts, board)
        service = Service.load(settings, checkpoint, client, heartbeat, board)
        server = _Server(_config(create_app(service), settings, board.tally()))
        stopping = asyncio.create_task(_stop(server, client, settings, stop))
        try:
            async with _operations(service, operations_listener), _watched(settings, run_dir, name):
                await server.serve(sockets=[listener])
        finally:
            stopping.cancel()


@contextlib.asynccontextmanager
async def _watched(settings: Settings, run_dir: Path, name: str) -> AsyncIterator[None]:
    """Shows that the loop turns, where others would hide from probes that it does not."""
    if settings.api_workers == 1:
        yield
        return
    with Heartbeat(run_dir, name) as pulse:
        beating = asyncio.create_task(_beat(pulse))
        try:
            yield
        finally:
            beating.cancel()
            pulse.forget()


async def _beat(pulse: Heartbeat) -> None:
    while True:
        pulse.beat()
        await asyncio.sleep(TURN_S)


@contextlib.asynccontextmanager
async def _operations(service: Service, listener: socket.socket | None) -> AsyncIterator[None]:
    """Answers operators on their own port, also while the other one is being shut down."""
    if listener is None:
        yield
        return
    server = _Server(_config(create_operations_app(service), service.settings, Tally()))
    serving = asyncio.create_task(server.serve([listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await serving


def _config(app: FastAPI, limits: Limits, connections: Tally) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=functools.partial(  # type: ignore[arg-type]
            GuardedH11Protocol, limits=limits, tally=connections
        ),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=limits.idle_connection_s,  # type: ignore[arg-type]
        timeout_graceful_shutdown=2 * STUCK_CLIENT_S,
        h11_max_incomplete_event_size=limits.max_url_bytes + limits.max_header_bytes,
    )


async def _stop(server: _Server, client: EngineClient, settings: Settings, stop: Stop) -> None:
    waits = [asyncio.create_task(event.wait()) for event in (stop.drain, stop.now)]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    if not stop.now.is_set():
        await _drain(server, client, settings, stop.now)
    for wait in waits:
        wait.cancel()
    client.drain()
    server.should_exit = True
    await asyncio.sleep(STUCK_CLIENT_S)
    for connection in list(server.server_state.connections):
        connection.transport.abort()


async def _drain(
    server: _Server, client: EngineClient, settings: Settings, now: asyncio.Event
) -> None:
    """Returns when nothing is open any more, or everybody has had the time they get."""
    client.leave()
    began_at = time.monotonic()
    while not now.is_set():
        passed_s = time.monotonic() - began_at
        if passed_s >= settings.drain_grace_s:
            server.stop_listening()
            if not server.server_state.tasks:
                return
        if passed_s >= settings.drain_grace_s + settings.drain_timeout_s:
            return
        await asyncio.sleep(DRAIN_POLL_S)
