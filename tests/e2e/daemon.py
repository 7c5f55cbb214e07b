"""The whole daemon as a user starts it, for tests that speak HTTP to it."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import httpx
import psutil

from tests import golden

START_S = 180
END_S = 20
MODEL = "tiny-a"
LOG_S = 10
ADDRESS = r"on (http://\S+)"


class Daemon:
    """A running `internvl-serve serve`."""

    def __init__(
        self,
        *flags: str,
        model: Path | None = golden.CHECKPOINT,
        name: str = MODEL,
        before: tuple[str, ...] = (),
    ) -> None:
        """`before` is a command that runs the daemon."""
        command = [*before, sys.executable, "-P", "-m", "server", "serve", "--port", "0"]
        command += ["--host", "127.0.0.1", "--served-model-name", name, "--check-integrity"]
        command += ["--drain-timeout-s", "1"]
        if model is not None:
            command += ["--model", str(model)]
        self.process = subprocess.Popen(
            [*command, *flags], stderr=subprocess.PIPE, text=True, encoding="utf-8"
        )
        self._lines: list[str] = []
        self._ended = False
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = self._wait_for_address()
        self.http = httpx.Client(base_url=self.url, timeout=60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def log(self) -> str:
        """What the daemon has written so far."""
        with self._changed:
            return "".join(self._lines)

    def logged(self, pattern: str) -> re.Match[str]:
        """Waits for what the daemon writes: an answer may overtake the line that goes with it."""
        match = self._wait_for_log(pattern, LOG_S)
        assert match is not None, f"{pattern!r} is not in the log:\n{self.log}"
        return match

    def _wait_for_log(self, pattern: str, timeout_s: float) -> re.Match[str] | None:
        def search() -> re.Match[str] | None:
            return re.search(pattern, "".join(self._lines))

        with self._changed:
            self._changed.wait_for(lambda: self._ended or search(), timeout_s)
            return search()

    def _wait_for_address(self) -> str:
        match = self._wait_for_log(ADDRESS, START_S)
        if match is None:
            self._end()
            raise AssertionError(f"the daemon did not start:\n{self.log}")
        return match[1]

    def wait_until_ready(self) -> None:
        deadline_s = time.monotonic() + START_S
        while self.http.get("/readyz").status_code != 200:
            assert self.process.poll() is None, f"the daemon ended:\n{self.log}"
            assert time.monotonic() < deadline_s, f"the daemon is not ready:\n{self.log}"
            time.sleep(0.05)

    def children(self) -> dict[str, psutil.Process]:
        """The child processes by role, without those that have ended."""
        found = {}
        for child in psutil.Process(self.process.pid).children():
            if child.status() == psutil.STATUS_ZOMBIE:
                continue
            module = next(part for part in child.cmdline() if part.startswith("server."))
            found[module.removeprefix("server.").removesuffix("_process")] = child
        return found

    def engine(self) -> psutil.Process:
        """The engine process, once there is one."""
        deadline_s = time.monotonic() + START_S
        while (engine := self.children().get("engine")) is None:
            assert time.monotonic() < deadline_s, f"there is no engine:\n{self.log}"
            time.sleep(0.02)
        return engine

    def chat(self, **body: Any) -> dict[str, Any]:
        """A chat completion; the body is the request's."""
        response = self.http.post("/v1/chat/completions", json={"model": MODEL, **body})
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def gauge(self, name: str) -> float:
        """A metric without labels."""
        for line in self.http.get("/metrics").text.splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
        raise AssertionError(f"no metric {name}")

    def wait_until_idle(self, timeout_s: float = 30) -> None:
        """Until no request runs or waits and all blocks are free."""
        names = ("requests_running", "requests_waiting", "kv_blocks_used")
        deadline_s = time.monotonic() + timeout_s
        while any(self.gauge(f"internvl_{name}") for name in names):
            assert time.monotonic() < deadline_s, self.http.get("/metrics").text
            time.sleep(0.05)

    def stop(self) -> None:
        self.http.close()
        self._end()

    def _end(self) -> None:
        try:
            end(self.process)
        finally:
            self._reader.join(timeout=5)
            assert self.process.stderr is not None
            self.process.stderr.close()


def end(process: subprocess.Popen[Any]) -> int:
    """Ends a daemon; returns its exit status.

    Raises:
        TimeoutExpired: it did not end, and was killed with all its children.
    """
    process.terminate()
    try:
        return process.wait(timeout=END_S)
    except subprocess.TimeoutExpired:
        supervisor = psutil.Process(process.pid)
        # Itself first, for it would start others in their place.
        for one in [supervisor, *supervisor.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()
        raise


@contextmanager
def running(
    *flags: str, model: Path | None = golden.CHECKPOINT, name: str = MODEL
) -> Iterator[Daemon]:
    with Daemon(*flags, model=model, name=name) as daemon:
        daemon.wait_until_ready()
        yield daemon


def data_url(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def image_part(file: str) -> dict[str, Any]:
    """A golden picture as a content part."""
    return {
        "type": "image_url",
        "image_url": {"url": data_url((golden.IMAGES / file).read_bytes())},
    }


def text_part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}
