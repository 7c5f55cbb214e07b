"""KEDA's queries, asked of a Prometheus that reads two daemons as two pods of the release."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.deploy.chart import NAMESPACE, find, render, values_of
from tests.e2e.daemon import running
from tests.observability.prometheus import Prometheus

pytestmark = pytest.mark.timeout(300)

MANIFESTS = render(values_of("keda"))
TRIGGERS = find(MANIFESTS, "ScaledObject")["spec"]["triggers"]
WORKLOAD = find(MANIFESTS, "Deployment")["metadata"]["name"]


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Two replicas, and a pod of somebody else that must not count."""
    pods = (f"{WORKLOAD}-7d9c-a", f"{WORKLOAD}-7d9c-b", "other-0")
    with ExitStack() as owned:
        daemons = [owned.enter_context(running()) for _ in range(2)]
        urls = [daemon.url.removeprefix("http://") for daemon in (*daemons, daemons[0])]
        configs = [
            {"targets": [url], "labels": {"namespace": NAMESPACE, "pod": pod}}
            for url, pod in zip(urls, pods, strict=True)
        ]
        folder = tmp_path_factory.mktemp("prometheus")
        prometheus = owned.enter_context(Prometheus(folder, configs))
        prometheus.wait_for("count(internvl_requests_waiting)", 3, patience_s=60)
        yield prometheus


@pytest.mark.parametrize("trigger", TRIGGERS, ids=lambda trigger: trigger["name"])
def test_a_query_gives_one_number(prometheus: Prometheus, trigger: dict[str, object]) -> None:
    """Two are an error of KEDA's, and nothing is ever scaled."""
    metadata = trigger["metadata"]
    assert isinstance(metadata, dict)
    assert len(prometheus.query(metadata["query"])) == 1
    assert float(metadata["threshold"]) > 0


def test_the_queries_count_the_pods_of_the_release(prometheus: Prometheus) -> None:
    query = TRIGGERS[0]["metadata"]["query"].removeprefix("sum(")
    assert prometheus.value(f"count({query}") == 2
