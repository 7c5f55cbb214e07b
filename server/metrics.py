"""What Prometheus scrapes: the engine's last report, and what the API process counts itself.

Each process owns a registry, so nothing is global and tests do not see each other. Labels hold
numbers and fixed words only, never anything that a client sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from server.messages import Gauges

GAUGES: Mapping[str, str] = {
    "requests_running": "Requests that the engine is working on.",
    "requests_waiting": "Requests that wait for room in the engine.",
    "kv_blocks_used": "Blocks of the KV cache that running requests hold.",
    "kv_blocks": "Blocks of the KV cache.",
    "image_slots_used": "Picture embeddings on the device.",
}
COUNTERS: Mapping[str, str] = {
    "prompt_tokens": "Prompt tokens of requests that were started.",
    "cached_tokens": "Prompt tokens whose KV came from the prefix cache.",
    "generated_tokens": "Tokens generated.",
    "images_encoded": "Pictures that went through the vision tower.",
    "images_cached": "Pictures whose embeddings were still on the device.",
    "preemptions": "Requests that were set back to free KV blocks.",
    "cancellations": "Requests that were given up before their end.",
    "steps": "Steps of the engine.",
}


class EngineCollector(Collector):
    """Reads the engine's last report at each scrape."""

    def __init__(self, latest: Callable[[], Gauges]) -> None:
        self._latest = latest

    def collect(self) -> Iterator[Metric]:
        report = self._latest()
        for name, text in GAUGES.items():
            yield GaugeMetricFamily(f"internvl_{name}", text, value=getattr(report, name))
        for name, text in COUNTERS.items():
            value = getattr(report, f"{name}_total")
            yield CounterMetricFamily(f"internvl_{name}", text, value=value)
        yield GaugeMetricFamily(
            "internvl_kv_cache_usage_ratio",
            "Share of the KV cache that running requests hold.",
            value=report.kv_blocks_used / report.kv_blocks if report.kv_blocks else 0.0,
        )


class ApiMetrics:
    """The registry of an API process."""

    def __init__(self, latest: Callable[[], Gauges]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(EngineCollector(latest))
        self._responses = Counter(
            "internvl_http_responses",
            "HTTP responses by status code; 499 is a client that went away.",
            ["code"],
            registry=self._registry,
        )

    def count_response(self, status: int) -> None:
        self._responses.labels(code=str(status)).inc()

    def render(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self._registry)
