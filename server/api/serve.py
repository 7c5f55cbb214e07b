"""Runs the API on a listening socket until it is told to stop.

Signals belong to the process that calls this. On shutdown nothing new is accepted, every open
request is told so within a moment, and a client that does not read cannot delay the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from server.api.app import create_app
from server.api.client import EngineClient
from server.api.protocol import GuardedH11Protocol
from server.api.service import Service
from server.ipc import ApiEndpoint
from server.limits import Limits
from server.settings import Settings

STUCK_CLIENT_S = 1
"""How long connections may take to end after the shutdown began; then they are cut."""


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    settings: Settings,
    checkpoint: Path,
    listener: socket.socket,
    *,
    run_dir: Path,
    name: str,
    shutdown: asyncio.Event,
    restarts: int = 0,
) -> None:
    """Serves until `shutdown` is set, then ends what is open and returns.

    Args:
        checkpoint: folder of the served model; only its configuration and tokenizer are read.
        listener: bound socket, perhaps shared with other API processes; it is closed at the end.
        run_dir: where the engine's socket is or will be.
        name: of this process towards the engine; unique among the API processes.
        restarts: how many of the daemon's processes were started again so far.

    Raises:
        CheckpointError: the folder cannot be served.
    """
    # Inherited by accepted connections. asyncio sets it only where the listener names its protocol,
    # and without it every chunk of a stream waits for the client's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with contextlib.closing(ApiEndpoint(run_dir, name)) as endpoint:
        client = EngineClient(endpoint, settings.max_waiting_requests, restarts)
        server = _Server(_config(create_app(Service.load(settings, checkpoint, client)), settings))
        stopping = asyncio.create_task(_stop(server, client, shutdown))
        try:
            await server.serve(sockets=[listener])
        finally:
            stopping.cancel()


def _config(app: FastAPI, limits: Limits) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=functools.partial(GuardedH11Protocol, limits=limits),  # type: ignore[arg-type]
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


async def _stop(server: uvicorn.Server, client: EngineClient, shutdown: asyncio.Event) -> None:
    await shutdown.wait()
    client.drain()
    server.should_exit = True
    await asyncio.sleep(STUCK_CLIENT_S)
    for connection in list(server.server_state.connections):
        connection.transport.abort()
