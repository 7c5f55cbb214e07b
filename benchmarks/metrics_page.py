"""What the metrics page costs: ours beside prometheus_client's for the same series, in CPU time,
and that of several API processes that count together, with what counting costs them.

    python -m benchmarks.metrics_page [--url http://127.0.0.1:8000]

With --url it scrapes a running daemon too, 20 times a second as routers do, and prints how long the
answers took; put the daemon under load with `internvl-serve bench` meanwhile.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client import Histogram as PeerHistogram

from server.board import Board
from server.messages import Gauges, Ready
from server.metrics import ApiMetrics
from server.series import Histogram

REPEATS = 200
OBSERVATIONS = 1000
SCRAPES_PER_S = 20


@dataclass
class View:
    """An engine that said nothing yet."""

    latest: Gauges = field(default_factory=Gauges)
    ready: Ready | None = None
    restarts: int = 0


def cpu_ms(work: Callable[[], object]) -> float:
    began = time.process_time()
    for _ in range(REPEATS):
        work()
    return (time.process_time() - began) / REPEATS * 1000


def peer(ours: ApiMetrics) -> CollectorRegistry:
    """prometheus_client with as many histograms, bounds and counters as we have, aliases too."""
    registry = CollectorRegistry()
    histograms = [one for one in vars(ours).values() if isinstance(one, Histogram)]
    for index, histogram in enumerate(histograms * 2):
        PeerHistogram(f"h{index}", "Help.", registry=registry, buckets=histogram.bounds)
    for index in range(30):
        Counter(f"c{index}", "Help.", registry=registry)
    return registry


def of_processes(count: int) -> ApiMetrics:
    """The series of one of several API processes."""
    with tempfile.TemporaryDirectory() as folder:
        return ApiMetrics(View(), "model", Board.open(Path(folder), count, 0))


def observe_many(metrics: ApiMetrics) -> None:
    for _ in range(OBSERVATIONS):
        metrics.inter_token_latency.observe(0.02)
        metrics.count_response(200)


def scrape(url: str, seconds: float) -> list[float]:
    """How long each scrape took, in milliseconds, ascending. The client is the least that there is:
    it shares the cores with the daemon."""
    times = []
    address = urlsplit(url)
    http = HTTPConnection(address.hostname or "", address.port)
    due = time.perf_counter()
    end = due + seconds
    while due < end:
        time.sleep(max(0.0, due - time.perf_counter()))
        began = time.perf_counter()
        http.request("GET", "/metrics")
        response = http.getresponse()
        response.read()
        assert response.status == 200
        times.append((time.perf_counter() - began) * 1000)
        due += 1 / SCRAPES_PER_S
    http.close()
    return sorted(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="of a running daemon")
    parser.add_argument("--seconds", type=float, default=10)
    arguments = parser.parse_args()
    metrics = ApiMetrics(View(), "model")
    registry = peer(metrics)
    print(f"our page, with aliases     {cpu_ms(metrics.render):6.2f} ms of CPU")
    print(f"prometheus_client's        {cpu_ms(lambda: generate_latest(registry)):6.2f} ms of CPU")
    for count in (1, 2, 4):
        shared = of_processes(count)
        page_ms, observing_ms = cpu_ms(shared.render), cpu_ms(lambda: observe_many(shared))  # noqa: B023
        print(
            f"page of {count} processes        {page_ms:6.2f} ms, an observation and a count "
            f"{1000 * observing_ms / OBSERVATIONS:.2f} us"
        )
    if arguments.url:
        times = scrape(arguments.url, arguments.seconds)
        for share in (0.5, 0.9, 0.99, 1):
            at = min(len(times) - 1, int(share * len(times)))
            print(f"p{share * 100:<4.0f} of {len(times)} scrapes       {times[at]:6.2f} ms")


if __name__ == "__main__":
    main()
