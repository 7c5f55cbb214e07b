"""The API process: a composition root, started by the supervisor. Never imports torch."""

from __future__ import annotations

import asyncio
import signal
import socket
from pathlib import Path

import uvloop

from server.api.serve import Stop, serve
from server.child import DRAIN, Assignment, run_child


def run_api(assignment: Assignment) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve_until_told(assignment))


async def _serve_until_told(assignment: Assignment) -> None:
    stop = Stop()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(DRAIN, stop.drain.set)
    loop.add_signal_handler(signal.SIGTERM, stop.now.set)
    listener, *others = [socket.socket(fileno=fd) for fd in assignment.listener_fds]
    await serve(
        assignment.parsed_settings(),
        Path(assignment.checkpoint),
        listener,
        run_dir=Path(assignment.run_dir),
        name=assignment.name,
        place=assignment.rank,
        restarts=assignment.restarts,
        stop=stop,
        operations_listener=others[0] if others else None,
    )


if __name__ == "__main__":
    run_child(run_api)
