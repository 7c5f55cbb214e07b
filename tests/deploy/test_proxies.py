"""Streams through nginx and Envoy, configured as the chart has it: token by token, also in a drain.

Whether tokens wait in a proxy is asked without a clock: when the first event is here, the daemon
must still be working on the rest.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.deploy.chart import find, render, values_of
from tests.deploy.proxies import envoy, nginx_directives
from tests.e2e.daemon import MODEL, Daemon, running
from tests.proxy import nginx

pytestmark = pytest.mark.timeout(300)

TOKENS = 400
Proxy = Callable[[Path, str], AbstractContextManager[str]]

INGRESS = nginx_directives(find(render(values_of("full")), "Ingress"))
TIMEOUTS = find(render(values_of("full")), "HTTPRoute")["spec"]["rules"][0]["timeouts"]
BUFFERING = (
    "proxy_buffering on; proxy_ignore_headers X-Accel-Buffering; proxy_buffer_size 512k; "
    "proxy_buffers 4 512k; proxy_busy_buffers_size 1m;"
)


def by_nginx(folder: Path, daemon: str) -> AbstractContextManager[str]:
    return nginx(folder, [daemon], INGRESS)


def by_envoy(folder: Path, daemon: str) -> AbstractContextManager[str]:
    return envoy(folder, daemon, TIMEOUTS)


through = pytest.mark.parametrize("proxy", [by_nginx, by_envoy])


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running("--max-num-seqs", "4") as daemon:
        yield daemon


def events(url: str) -> Iterator[str]:
    """Data of the events of a long answer, as they arrive."""
    body = {"model": MODEL, "max_tokens": TOKENS, "stream": True, "ignore_eos": True}
    body |= {"messages": [{"role": "user", "content": "Tell me a long story."}], "temperature": 0}
    with (
        httpx.Client(base_url=url, timeout=60) as http,
        http.stream("POST", "/v1/chat/completions", json=body) as stream,
    ):
        assert stream.status_code == 200, stream.read()
        for line in stream.iter_lines():
            if line.startswith("data: "):
                yield line.removeprefix("data: ")


def finish_reasons(data: list[str]) -> list[str]:
    chunks: list[dict[str, Any]] = [json.loads(one) for one in data if one != "[DONE]"]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    return [choice["finish_reason"] for choice in choices if choice["finish_reason"]]


@through
def test_tokens_do_not_wait_in_the_proxy(daemon: Daemon, proxy: Proxy, tmp_path: Path) -> None:
    with proxy(tmp_path, daemon.url) as url:
        arriving = events(url)
        first = [next(arriving) for _ in range(3)]
        assert daemon.gauge("internvl_requests_running") == 1
        rest = list(arriving)
    assert rest[-1] == "[DONE]"
    assert finish_reasons(first + rest) == ["length"]


def test_the_daemon_tells_nginx_not_to_buffer(daemon: Daemon, tmp_path: Path) -> None:
    with nginx(tmp_path, [daemon.url], "") as url:
        arriving = events(url)
        next(arriving)
        assert daemon.gauge("internvl_requests_running") == 1
        assert list(arriving)[-1] == "[DONE]"


def test_a_proxy_that_buffers_is_noticed(daemon: Daemon, tmp_path: Path) -> None:
    """Or the tests above could not fail."""
    with nginx(tmp_path, [daemon.url], BUFFERING) as url:
        arriving = events(url)
        next(arriving)
        assert daemon.gauge("internvl_requests_running") == 0
        list(arriving)


def test_a_short_time_out_would_cut_streams(daemon: Daemon, tmp_path: Path) -> None:
    """Why the chart's HTTPRoute has none."""
    short = {"request": "0.3s", "backendRequest": "0s"}
    with envoy(tmp_path, daemon.url, short) as url, pytest.raises(httpx.HTTPError):
        list(events(url))
    daemon.wait_until_idle()


@through
def test_a_drain_does_not_break_streams(proxy: Proxy, tmp_path: Path) -> None:
    flags = ("--drain-grace-s", "1", "--drain-timeout-s", "60")
    with running(*flags) as ending, proxy(tmp_path, ending.url) as url:
        arriving = events(url)
        first = next(arriving)
        ending.process.send_signal(signal.SIGTERM)
        rest = list(arriving)
        assert rest[-1] == "[DONE]"
        assert finish_reasons([first, *rest]) == ["length"]
        assert ending.process.wait(timeout=60) == 0


@through
def test_a_large_picture_passes(daemon: Daemon, proxy: Proxy, tmp_path: Path) -> None:
    """10 MB of base64, ten times what nginx takes by default."""
    url = "data:image/png;base64," + "A" * 10_000_000
    content = [{"type": "image_url", "image_url": {"url": url}}]
    body = {"model": MODEL, "messages": [{"role": "user", "content": content}]}
    with proxy(tmp_path, daemon.url) as address:
        answer = httpx.post(f"{address}/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == 400, "the daemon's own answer to a picture that is none"
    assert "error" in answer.json()
