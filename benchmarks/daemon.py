"""A daemon on loopback for a measurement, and requests to it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from server.listening import listen

START_S = 300.0

Post = tuple[int, float]
"""Status and seconds of a request."""


def chat(number: int, max_tokens: int, stream: bool = False) -> dict[str, Any]:
    return {
        "model": "floods",
        "messages": [{"role": "user", "content": f"Count from {number}."}],
        "max_tokens": max_tokens,
        "ignore_eos": True,
        "stream": stream,
    }


@contextlib.asynccontextmanager
async def daemon(model: str | None, *flags: str) -> AsyncIterator[str]:
    """The address of a daemon that is ready."""
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "server", "serve", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--served-model-name", "floods", "--log-level", "error", *flags]
    command += ["--model", model] if model else []
    process = subprocess.Popen(command)
    url = f"http://127.0.0.1:{port}"
    try:
        async with aiohttp.ClientSession() as http:
            deadline_s = time.monotonic() + START_S
            while not await is_ready(http, url):
                if process.poll() is not None or time.monotonic() > deadline_s:
                    raise SystemExit("the daemon did not start")
                await asyncio.sleep(0.1)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


async def is_ready(http: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with http.get(f"{url}/readyz") as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


async def post(http: aiohttp.ClientSession, url: str, body: dict[str, Any], key: str = "") -> Post:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    began_s = time.perf_counter()
    async with http.post(f"{url}/v1/chat/completions", json=body, headers=headers) as response:
        await response.read()
        return response.status, time.perf_counter() - began_s
