"""The API as a client meets it: `serve` on a real socket, in a thread with its own event loop."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
import uvloop

from server.api.serve import Stop, serve
from server.settings import Settings
from tests.api.fake_engine import until
from tests.golden import CHECKPOINT, IMAGES

MODEL = "tiny"


class RunningApi:
    """`with RunningApi(run_dir) as api:` serves; leaving the block shuts down and waits.

    Args:
        place: among API processes, where options tell of several.
    """

    def __init__(
        self, run_dir: Path, checkpoint: Path = CHECKPOINT, place: int = 0, **options: Any
    ) -> None:
        self._run_dir = run_dir
        self._place = place
        self._checkpoint = checkpoint
        self._settings = Settings(
            **{"model": str(checkpoint), "served_model_name": (MODEL,), **options}
        )
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.operations_listener: socket.socket | None = None
        self.url = f"http://127.0.0.1:{self.port}"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: Stop | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.client = httpx.Client(base_url=self.url, timeout=10)
        until(self._alive)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        self.client.close()
        self.begin_shutdown()
        self._thread.join(timeout=10)
        self.listener.close()

    def begin_shutdown(self) -> None:
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.now.set)

    def begin_drain(self) -> None:
        assert self._loop is not None and self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.drain.set)

    @property
    def ended(self) -> bool:
        return not self._thread.is_alive()

    def wait_until_ready(self) -> None:
        until(lambda: self.client.get("/readyz").status_code == 200)

    def post(self, body: Any, **options: Any) -> httpx.Response:
        return self.client.post("/v1/chat/completions", json=body, **options)

    def post_raw(self, body: bytes, **headers: str) -> httpx.Response:
        return self.client.post(
            "/v1/chat/completions",
            content=body,
            headers={"content-type": "application/json", **headers},
        )

    @contextmanager
    def stream(self, body: Mapping[str, Any]) -> Iterator[httpx.Response]:
        with self.client.stream(
            "POST", "/v1/chat/completions", json={**body, "stream": True}
        ) as response:
            yield response

    def events(self, body: Mapping[str, Any]) -> list[Any]:
        """All data of a stream, decoded; the end mark stays a string."""
        with self.stream(body) as response:
            assert response.status_code == 200, response.read()
            return [decode_event(line) for line in response.iter_lines() if line]

    def metric(self, name: str) -> float:
        for line in self.client.get("/metrics").text.splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
        raise KeyError(name)

    def _alive(self) -> bool:
        if self._failure is not None:
            raise self._failure
        try:
            return self.client.get("/livez").status_code == 200
        except httpx.TransportError:
            return False

    def _run(self) -> None:
        async def main() -> None:
            self._loop, self._stop = asyncio.get_running_loop(), Stop()
            await serve(
                self._settings,
                self._checkpoint,
                self.listener,
                run_dir=self._run_dir,
                name=f"api-{self._place}",
                place=self._place,
                stop=self._stop,
                operations_listener=self.operations_listener,
            )

        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(main())
        except BaseException as failure:
            self._failure = failure


class Background:
    """A request that waits for its answer in a thread, on a connection of its own."""

    def __init__(self, api: RunningApi, body: Mapping[str, Any]) -> None:
        self._thread = threading.Thread(target=self._run, args=(api.url, body), daemon=True)
        self._response: httpx.Response | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(timeout=10)

    def response(self) -> httpx.Response:
        self._thread.join(timeout=10)
        assert self._response is not None
        return self._response

    def _run(self, url: str, body: Mapping[str, Any]) -> None:
        self._response = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=10)


def decode_event(line: str) -> Any:
    assert line.startswith("data: "), line
    data = line.removeprefix("data: ")
    return data if data == "[DONE]" else json.loads(data)


def chat(content: Any = "Hi", **fields: Any) -> dict[str, Any]:
    """A request with one user message."""
    return {"model": MODEL, "messages": [{"role": "user", "content": content}], **fields}


def picture_url(name: str = "rgb_square.png") -> str:
    return f"data:image/png;base64,{base64.b64encode((IMAGES / name).read_bytes()).decode()}"


def picture_part(name: str = "rgb_square.png") -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": picture_url(name)}}
