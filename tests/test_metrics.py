from __future__ import annotations

import msgspec

from server.messages import Gauges
from server.metrics import COUNTERS, GAUGES, ApiMetrics


def values(metrics: ApiMetrics) -> dict[str, float]:
    lines = metrics.render().decode().splitlines()
    samples = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in samples}


def test_every_number_of_the_engine_is_exported() -> None:
    names = {field.name for field in msgspec.structs.fields(Gauges)}
    assert names == {*GAUGES, *(f"{name}_total" for name in COUNTERS)}


def test_values_are_those_of_the_last_report() -> None:
    report = Gauges()
    metrics = ApiMetrics(lambda: report)
    assert values(metrics)["internvl_kv_cache_usage_ratio"] == 0
    report = Gauges(
        requests_running=2,
        requests_waiting=5,
        kv_blocks_used=3,
        kv_blocks=12,
        images_encoded_total=7,
        preemptions_total=1,
    )
    exported = values(metrics)
    assert exported["internvl_requests_running"] == 2
    assert exported["internvl_requests_waiting"] == 5
    assert exported["internvl_kv_cache_usage_ratio"] == 0.25
    assert exported["internvl_images_encoded_total"] == 7
    assert exported["internvl_preemptions_total"] == 1


def test_responses_are_counted_by_code_and_by_process() -> None:
    first, second = ApiMetrics(Gauges), ApiMetrics(Gauges)
    for status in (200, 200, 400):
        first.count_response(status)
    assert values(first)['internvl_http_responses_total{code="200"}'] == 2
    assert values(first)['internvl_http_responses_total{code="400"}'] == 1
    assert 'internvl_http_responses_total{code="200"}' not in values(second)
