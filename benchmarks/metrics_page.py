"""What the metrics page costs: ours beside prometheus_client's for the same series, in CPU time,
and that of several API processes that count together, with what counting costs them.

    python -m benchmarks.metrics_page [--url http://127.0.0.1:8000]

With --url it scrapes a running daemon too, 20 times a second as routers do, with pauses in between,
and prints how long the answers took and how many tokens there were with and without. Put the daemon
under load with `internvl-serve bench` meanwhile; `chrt -f 1` before this command stands for the
router's own machine.
"""

from __future__ import annotations

import argparse
import statistics
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
ROUNDS = 6
TOKENS = "internvl_generated_tokens_total"


@dataclass
class View:
    """An engine that said nothing yet."""

    latest: Gauges = field(default_factory=lambda: Gauges(kv_blocks=1))
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


class Scraper:
    """The least client that there is: it shares the cores with the daemon."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._http = HTTPConnection(address.hostname or "", address.port)
        self.times_ms: list[float] = []

    def scrape(self) -> bytes:
        began = time.perf_counter()
        self._http.request("GET", "/metrics")
        response = self._http.getresponse()
        page = response.read()
        assert response.status == 200
        self.times_ms.append((time.perf_counter() - began) * 1000)
        return page

    def tokens(self) -> float:
        """Generated so far."""
        line = next(line for line in self.scrape().splitlines() if line.startswith(TOKENS.encode()))
        return float(line.split()[-1])

    def rate(self, seconds: float, *, busy: bool) -> float:
        """Tokens a second while it scrapes, or does not."""
        before, began = self.tokens(), time.perf_counter()
        due, end = began, began + seconds
        while due < end:
            due += 1 / SCRAPES_PER_S if busy else seconds
            time.sleep(max(0.0, due - time.perf_counter()))
            if busy:
                self.scrape()
        return (self.tokens() - before) / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="of a running daemon")
    parser.add_argument("--seconds", type=float, default=60)
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
        scraper = Scraper(arguments.url)
        seconds = arguments.seconds / (2 * ROUNDS)
        rates = [
            [scraper.rate(seconds, busy=busy) for busy in (False, True)] for _ in range(ROUNDS)
        ]
        times = sorted(scraper.times_ms)
        for share in (0.5, 0.9, 0.99, 1):
            at = min(len(times) - 1, int(share * len(times)))
            print(f"p{share * 100:<4.0f} of {len(times)} scrapes       {times[at]:6.2f} ms")
        for name, of_all in zip(("without", "with"), zip(*rates, strict=True), strict=True):
            spread = f"{min(of_all):.1f} to {max(of_all):.1f}"
            print(f"tokens/s {name:7}          {statistics.median(of_all):6.1f} ({spread})")


if __name__ == "__main__":
    main()
