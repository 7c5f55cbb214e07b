"""A device without memory, and one that is gone: the engine process is given what torch raises."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import EXACT
from tests.e2e.daemon import Daemon, image_part, text_part
from tests.e2e.streams import check_answer, check_cut, start_streams
from tests.faults.injection import injected

INJECTION = """
import torch
from server.runner.runner import LocalRunner
encode = LocalRunner._encode

def failing(self, encodes):
    if encodes and fault.exists():
        name, _, message = fault.read_text().partition(":")
        fault.unlink()
        raise getattr(torch, name)(message)
    return encode(self, encodes)

LocalRunner._encode = failing
"""
"""The next picture meets the fault, and only that."""


class FaultyDaemon(Daemon):
    def __init__(self, folder: Path) -> None:
        self._fault = folder / "fault"
        super().__init__(*EXACT, before=injected(folder, self._fault, INJECTION))

    def ask_for_picture(self, file: str, fault: str) -> tuple[int, dict[str, Any], dict[str, str]]:
        """Status, error and headers of a request whose picture meets a fault."""
        self._fault.write_text(fault)
        content = [image_part(file), text_part("What is this?")]
        body = {"model": "tiny-a", "messages": [{"role": "user", "content": content}]}
        response = self.http.post("/v1/chat/completions", json=body)
        return response.status_code, response.json()["error"], dict(response.headers)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FaultyDaemon]:
    with FaultyDaemon(tmp_path) as daemon:
        daemon.wait_until_ready()
        yield daemon


def test_out_of_memory_costs_one_request_and_a_lost_device_a_restart(
    daemon: FaultyDaemon,
) -> None:
    engine = daemon.engine()
    streams, threads = start_streams(daemon, 2)
    status, error, headers = daemon.ask_for_picture(
        "gray.png", "OutOfMemoryError:CUDA out of memory."
    )
    assert (status, error["code"], headers["x-should-retry"]) == (500, "engine_error", "false")
    assert "ran out of memory" in error["message"]
    daemon.logged("out of memory in the vision tower: 1 requests failed, all others go on")
    check_answer(daemon)
    assert daemon.engine().pid == engine.pid
    assert all(thread.is_alive() for thread in threads), "the streams go on"

    status, error, _ = daemon.ask_for_picture(
        "palette.png", "AcceleratorError:CUDA error: unknown error\nstack"
    )
    assert (status, error["code"]) == (503, "engine_died")
    for lines, thread in zip(streams, threads, strict=True):
        thread.join(timeout=10)
        check_cut(lines, "engine_died")
    daemon.logged(r"the device is lost \(CUDA error: unknown error\): this process ends")
    daemon.wait_until_ready()
    check_answer(daemon)
