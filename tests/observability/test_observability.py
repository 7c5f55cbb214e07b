"""The rules by promtool; the dashboard by a real Prometheus that scrapes a daemon under load."""

from __future__ import annotations

import asyncio
import json
import math
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from server.bench.client import Server
from server.bench.command import measure
from server.bench.plan import Run
from server.bench.result import Result
from tests.e2e.daemon import Daemon, image_part, running, text_part
from tests.observability.prometheus import Prometheus

FOLDER = Path(__file__).parents[2] / "deploy/observability"
pytestmark = pytest.mark.timeout(300)

EXPRESSIONS = [
    (panel["title"], target["expr"])
    for panel in json.loads((FOLDER / "dashboard.json").read_text("utf-8"))["panels"]
    for target in panel["targets"]
]
WINDOW = {"$__rate_interval": "2m", "$instance": ".*"}
LOAD = [
    Run(scenario="text", prompt_tokens=32, output_tokens=12, concurrencies=[6], requests=18),
    Run(scenario="picture", output_tokens=8, concurrencies=[3], requests=6, natural_stops=True),
    Run(scenario="picture-repeated", output_tokens=8, concurrencies=[3], requests=6),
    Run(scenario="multi-turn", output_tokens=8, rates=[4.0], requests=6, turns=2),
]


@pytest.mark.parametrize(
    "command",
    [
        ["check", "rules", "rules.yml"],
        ["test", "rules", "rules_test.yml"],
        ["check", "config", "prometheus.yml"],
    ],
)
def test_promtool_agrees(command: list[str]) -> None:
    done = subprocess.run(
        ["promtool", *command], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_test() -> None:
    alerts = re.findall(r"- alert: (\w+)", (FOLDER / "rules.yml").read_text("utf-8"))
    tested = re.findall(r"alertname: (\w+)", (FOLDER / "rules_test.yml").read_text("utf-8"))
    assert len(alerts) >= 6
    assert all(tested.count(alert) >= 2 for alert in alerts), "one that fires and one that does not"


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running("--max-waiting-requests", "8") as daemon:
        yield daemon


@pytest.fixture(scope="module")
def prometheus(
    daemon: Daemon, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Prometheus, Result]]:
    """After load of all kinds, a refusal and an error."""
    target = daemon.url.removeprefix("http://")
    configs = [{"targets": [target]}]
    with Prometheus(tmp_path_factory.mktemp("prometheus"), configs) as prometheus:
        prometheus.wait_for("up", 1)
        prometheus.wait_for("internvl_steps_total >= bool 0", 1)
        for n in (9, 0):  # more choices than may be open, and none
            body = {"model": "tiny-a", "messages": [{"role": "user", "content": "Hi"}], "n": n}
            assert daemon.http.post("/v1/chat/completions", json=body).status_code in (400, 429)
        result = asyncio.run(measure(Server(f"{daemon.url}/v1", None, "none"), LOAD, {}))
        for point in result.points:
            assert not point.summary.failed, [request.error for request in point.requests]
        yield prometheus, result


@pytest.mark.parametrize(("panel", "expression"), EXPRESSIONS)
def test_an_expression_of_the_dashboard_finds_something(
    prometheus: tuple[Prometheus, Result], panel: str, expression: str
) -> None:
    for name, value in WINDOW.items():
        expression = expression.replace(name, value)
    values = [float(sample["value"][1]) for sample in prometheus[0].query(expression)]
    assert any(math.isfinite(value) for value in values), f"{panel}: {expression} is {values}"


def test_prometheus_has_every_series(daemon: Daemon, prometheus: tuple[Prometheus, Result]) -> None:
    families = text_string_to_metric_families(daemon.http.get("/metrics").text)
    names = {sample.name for family in families for sample in family.samples}
    assert sum(name.startswith("vllm:") for name in names) > 20
    found = {s["metric"]["__name__"] for s in prometheus[0].query('{job="internvl-serve"}')}
    assert names <= found


def test_the_numbers_are_those_of_the_client_to_the_token(
    daemon: Daemon, prometheus: tuple[Prometheus, Result]
) -> None:
    counters = {
        "internvl_request_prompt_tokens_sum": "prompt_tokens",
        "internvl_request_output_tokens_sum": "completion_tokens",
        "internvl_prompt_tokens_total": "prompt_tokens",
        "internvl_generated_tokens_total": "completion_tokens",
        "internvl_cached_tokens_total": "cached_tokens",
        "internvl_image_tokens_total": "image_tokens",
    }
    daemon.wait_until_idle()
    before = {name: daemon.gauge(name) for name in counters}
    usages = []
    for length in (3, 9, 27):
        content = [image_part("rgb_square.png"), text_part("word " * length)]
        message = {"role": "user", "content": content}
        usage = daemon.chat(messages=[message], max_tokens=length, ignore_eos=True)["usage"]
        usages.append({**usage, **usage["prompt_tokens_details"]})
    for name, field in counters.items():
        told = sum(usage[field] for usage in usages)
        assert told > 0
        prometheus[0].wait_for(name, before[name] + told)
