"""A real Prometheus that scrapes a daemon once a second."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, Self

import httpx

START_S = 30


class Prometheus:
    """Runs Debian's `prometheus` in a folder of its own; `with` ends it.

    Args:
        static_configs: targets and their labels, as Prometheus takes them.
    """

    def __init__(self, folder: Path, static_configs: list[dict[str, Any]]) -> None:
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "scrape_configs": [{"job_name": "internvl-serve", "static_configs": static_configs}],
        }
        # JSON is YAML.
        (folder / "prometheus.yml").write_text(json.dumps(config), encoding="utf-8")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        self._log = (folder / "log").open("w", encoding="utf-8")
        self._process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={self.url.removeprefix('http://')}",
            ],
            stdout=self._log,
            stderr=self._log,
        )
        self._http = httpx.Client(base_url=self.url, timeout=10)

    def __enter__(self) -> Self:
        deadline_s = time.monotonic() + START_S
        while not self._ready():
            assert self._process.poll() is None, "prometheus ended"
            assert time.monotonic() < deadline_s, "prometheus did not start"
            time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()
        self._process.terminate()
        self._process.wait(timeout=20)
        self._log.close()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Samples of an instant query."""
        answer = self._http.get("/api/v1/query", params={"query": expression})
        assert answer.status_code == 200, f"{expression}: {answer.text}"
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found

    def value(self, expression: str) -> float | None:
        """Of an expression with one sample; None where there is none."""
        found = self.query(expression)
        assert len(found) <= 1, f"{expression} has {len(found)} samples"
        return float(found[0]["value"][1]) if found else None

    def wait_for(self, expression: str, value: float, patience_s: float = 20) -> None:
        deadline_s = time.monotonic() + patience_s
        while (found := self.value(expression)) != value:
            assert time.monotonic() < deadline_s, f"{expression} is {found}, not {value}"
            time.sleep(0.2)

    def _ready(self) -> bool:
        try:
            return self._http.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False
