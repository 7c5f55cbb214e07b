from __future__ import annotations

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from server.messages import Gauges, Ready, StepReport
from server.metrics import COUNTERS, GAUGES, ApiMetrics
from server.vllm_names import ALIASES
from tests.api.fake_engine import READY
from tests.views import View

MODEL = 'my "model"'


def values(metrics: ApiMetrics) -> dict[str, float]:
    lines = metrics.render().decode().splitlines()
    samples = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in samples}


def ready(**changes: float) -> Ready:
    return msgspec.structs.replace(READY, **changes)


def test_every_number_of_the_engine_is_exported() -> None:
    names = {field.name for field in msgspec.structs.fields(Gauges)}
    assert names == {*GAUGES, *(f"{name}_total" for name in COUNTERS)}


def test_values_are_those_of_the_last_report() -> None:
    view = View()
    metrics = ApiMetrics(view)
    assert values(metrics)["internvl_kv_cache_usage_ratio"] == 0
    view.latest = Gauges(
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


def test_what_the_engine_has_counted_is_not_zero_before_it_has_said_so() -> None:
    """Its next report would be an increase by all that it has ever counted."""
    view = View()
    metrics = ApiMetrics(view, MODEL)
    counters = {f"internvl_{name}_total" for name in COUNTERS}
    aliases = {alias for own in counters for alias in ALIASES.get(own, ())}
    named = counters | {f'{alias}{{model_name="my \\"model\\""}}' for alias in aliases}
    assert len(named) > 15
    assert not any(name in metrics.render().decode() for name in counters | aliases)
    assert values(metrics)["internvl_requests_running"] == 0
    view.latest = Gauges(kv_blocks=12)
    exported = values(metrics)
    assert {exported[name] for name in named} == {0}


def test_what_the_engine_said_when_it_was_ready() -> None:
    view = View()
    metrics = ApiMetrics(view)
    without = values(metrics)
    assert without["internvl_engine_ready"] == without["internvl_request_slots"] == 0
    assert not any(name.startswith("internvl_cache_config_info") for name in without)
    view.ready, view.restarts = ready(weights_load_s=12.5), 3
    exported = values(metrics)
    assert exported["internvl_engine_ready"] == 1
    assert exported["internvl_request_slots"] == READY.max_num_seqs
    assert exported["internvl_restarts_total"] == 3
    assert exported["internvl_weights_load_seconds"] == 12.5
    assert exported['internvl_cache_config_info{block_size="16",num_gpu_blocks="64"}'] == 1


def test_responses_are_counted_by_code_and_by_process() -> None:
    first, second = ApiMetrics(View()), ApiMetrics(View())
    for status in (200, 200, 400):
        first.count_response(status)
    assert values(first)['internvl_http_responses_total{code="200"}'] == 2
    assert values(first)['internvl_http_responses_total{code="400"}'] == 1
    assert 'internvl_http_responses_total{code="200"}' not in values(second)


def test_steps_are_observed_and_the_tower_where_it_worked() -> None:
    metrics = ApiMetrics(View())
    metrics.observe_step(StepReport(0.02, 300))
    metrics.observe_step(StepReport(0.5, 8, encode_seconds=0.3))
    exported = values(metrics)
    assert exported["internvl_step_seconds_count"] == exported["internvl_step_tokens_count"] == 2
    assert exported["internvl_step_tokens_sum"] == 308
    assert exported["internvl_encode_seconds_count"] == 1
    assert exported["internvl_encode_seconds_sum"] == 0.3


def test_the_page_is_what_prometheus_reads() -> None:
    metrics = ApiMetrics(View(ready=READY), MODEL)
    metrics.count_response(200)
    families = list(text_string_to_metric_families(metrics.render().decode()))
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    assert all(family.documentation for family in families)


def test_gauges_have_no_labels() -> None:
    families = text_string_to_metric_families(ApiMetrics(View(ready=READY)).render().decode())
    for family in families:
        if family.type == "gauge" and not family.name.endswith("_info"):
            assert [sample.labels for sample in family.samples] == [{}]


def test_the_names_of_vllm_are_aliases_with_the_same_values() -> None:
    metrics = ApiMetrics(View(Gauges(requests_waiting=5, prompt_tokens_total=9), READY), MODEL)
    metrics.time_to_first_token.observe(0.3)
    exported = values(metrics)
    label = '{model_name="my \\"model\\""}'
    assert exported[f"vllm:num_requests_waiting{label}"] == 5
    assert exported[f"vllm:prompt_tokens_total{label}"] == 9
    assert exported[f"vllm:time_to_first_token_seconds_count{label}"] == 1
    text = metrics.render().decode()
    assert 'vllm:cache_config_info{block_size="16",num_gpu_blocks="64",model_name=' in text
    for own, aliases in ALIASES.items():
        assert f"# TYPE {own} " in text
        assert all(text.count(f"# TYPE {alias} ") == 1 for alias in aliases)


def test_aliases_can_be_left_out() -> None:
    assert b"vllm:" not in ApiMetrics(View(ready=READY)).render()


@pytest.mark.parametrize("name", ["running", "waiting"])
def test_routers_read_one_series_per_family(name: str) -> None:
    lines = ApiMetrics(View(), MODEL).render().decode().splitlines()
    assert sum(line.startswith(f"vllm:num_requests_{name}{{") for line in lines) == 1
