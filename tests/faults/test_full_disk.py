"""Disks that are full: of the log from the beginning, later all others. The daemon goes on."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import httpx
import psutil

from tests import golden
from tests.e2e.conftest import EXACT
from tests.e2e.daemon import MODEL, START_S
from tests.proxy import free_port

BODY = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}


def test_disks_that_are_full_stop_nothing_not_even_a_restart() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-P", "-m", "server", "serve", "--host", "127.0.0.1"]
    command += ["--port", url.rpartition(":")[2], "--served-model-name", MODEL]
    command += ["--model", str(golden.CHECKPOINT), *EXACT]
    with open("/dev/full", "w", encoding="utf-8") as full:
        process = subprocess.Popen(command, stdout=full, stderr=full)
    try:
        wait_until(process, lambda: ready(url))
        check_service(url)
        fill_disks(process)
        check_service(url)
        engine_of(process).kill()
        wait_until(process, lambda: not ready(url))
        wait_until(process, lambda: ready(url))
        check_service(url)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.wait()


def wait_until(process: subprocess.Popen[bytes], condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + START_S
    while not condition():
        assert process.poll() is None, "the daemon ended"
        assert time.monotonic() < deadline_s, "it did not happen"
        time.sleep(0.05)


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def check_service(url: str) -> None:
    assert httpx.post(f"{url}/v1/chat/completions", json=BODY, timeout=60).status_code == 200
    assert httpx.post(f"{url}/v1/chat/completions", json={}).status_code == 400
    assert httpx.get(f"{url}/metrics").status_code == 200


def fill_disks(process: subprocess.Popen[bytes]) -> None:
    """Neither the processes of the daemon nor their children can make a file longer from here."""
    daemon = psutil.Process(process.pid)
    for each in (daemon, *daemon.children(recursive=True)):
        each.rlimit(resource.RLIMIT_FSIZE, (0, 0))


def engine_of(process: subprocess.Popen[bytes]) -> psutil.Process:
    children = psutil.Process(process.pid).children()
    return next(child for child in children if "server.engine_process" in child.cmdline())
