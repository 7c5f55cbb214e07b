"""The API process: a composition root, started by the supervisor. Never imports torch."""

from __future__ import annotations

import asyncio
import signal
import socket
from pathlib import Path

import uvloop

from server.api.serve import serve
from server.child import Assignment, run_child


def run_api(assignment: Assignment) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve_until_told(assignment))


async def _serve_until_told(assignment: Assignment) -> None:
    shutdown = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, shutdown.set)
    await serve(
        assignment.parsed_settings(),
        Path(assignment.checkpoint),
        socket.socket(fileno=assignment.listener_fd),
        run_dir=Path(assignment.run_dir),
        name=assignment.name,
        restarts=assignment.restarts,
        shutdown=shutdown,
    )


if __name__ == "__main__":
    run_child(run_api)
