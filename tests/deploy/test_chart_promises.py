"""What the chart promises about pods: time to drain, GPUs, security, selectors, names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.chart import (
    CHART,
    PROFILES,
    find,
    pod_templates,
    profile_name,
    render,
    server_pods,
    values_of,
)

profiles = pytest.mark.parametrize("profile", PROFILES, ids=profile_name)


def container(values: dict[str, Any]) -> dict[str, Any]:
    first: dict[str, Any] = server_pods(render(values))[0]["spec"]["containers"][0]
    return first


@profiles
def test_pods_pass_the_restricted_standard(profile: Path) -> None:
    pods = pod_templates(render(values_of(profile_name(profile))))
    assert pods
    for pod in pods:
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        for one in spec["containers"] + spec.get("initContainers", []):
            security = one["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert security["capabilities"]["drop"] == ["ALL"]
            assert not one["image"].endswith("latest")
            assert "memory" in one["resources"]["limits"]


def test_only_rdma_adds_a_capability() -> None:
    def added(values: dict[str, Any]) -> list[str]:
        capabilities = container(values)["securityContext"]["capabilities"]
        found: list[str] = capabilities.get("add", [])
        return found

    group = values_of("multinode")
    assert added(group) == ["IPC_LOCK"]
    assert not added(group | {"leaderWorkerSet": {"rdma": False}})


@pytest.mark.parametrize("seconds", [(0, 0, 10, 5), (10, 120, 20, 60), (30, 600, 15, 5)])
def test_a_pod_is_killed_after_all_that_the_daemon_waits_for(
    seconds: tuple[int, int, int, int],
) -> None:
    grace, timeout, margin, shutdown = seconds
    drain = {"graceSeconds": grace, "timeoutSeconds": timeout, "marginSeconds": margin}
    values = {"drain": drain, "settings": {"shutdown_timeout_s": shutdown}}
    spec = server_pods(render(values))[0]["spec"]
    arguments = spec["containers"][0]["args"]
    assert f"--drain-grace-s={grace}" in arguments
    assert f"--drain-timeout-s={timeout}" in arguments
    # API processes end first, then ranks, each within the shutdown's time.
    assert spec["terminationGracePeriodSeconds"] == grace + timeout + 2 * shutdown + margin


@pytest.mark.parametrize(
    ("parallel", "gpus"),
    [
        ({"tensor": 1}, 1),
        ({"tensor": 4}, 4),
        ({"tensor": 4, "pipeline": 2, "nodes": 2}, 4),
        ({"tensor": 1, "pipeline": 4, "nodes": 4}, 1),
    ],
)
def test_gpus_follow_from_how_the_model_is_shared(parallel: dict[str, int], gpus: int) -> None:
    values = values_of("multinode") | {"parallel": parallel}
    for pod in server_pods(render(values)):
        resources = pod["spec"]["containers"][0]["resources"]
        assert resources["limits"]["nvidia.com/gpu"] == str(gpus)
        assert resources["requests"]["nvidia.com/gpu"] == str(gpus)
        assert resources["limits"]["memory"] == "4Gi"


def test_claimed_gpus_are_not_asked_for_twice() -> None:
    manifests = render(values_of("dra"))
    claim = find(manifests, "ResourceClaimTemplate")
    exactly = claim["spec"]["spec"]["devices"]["requests"][0]["exactly"]
    pod = server_pods(manifests)[0]["spec"]
    assert exactly["count"] == 2
    assert pod["resourceClaims"][0]["resourceClaimTemplateName"] == claim["metadata"]["name"]
    assert "nvidia.com/gpu" not in pod["containers"][0]["resources"]["limits"]


@profiles
def test_selectors_hold_nothing_that_changes(profile: Path) -> None:
    manifests = render(values_of(profile_name(profile)) | {"commonLabels": {"team": "b"}})
    stable = {"name", "instance", "component"}
    for manifest in manifests:
        if manifest["kind"] == "Deployment":
            labels = manifest["spec"]["selector"]["matchLabels"]
            assert {label.rpartition("/")[2] for label in labels} == stable
            assert labels.items() <= manifest["spec"]["template"]["metadata"]["labels"].items()


def test_a_new_chart_does_not_restart_pods() -> None:
    pods = server_pods(render(values_of("gpu")))
    assert not [label for label in pods[0]["metadata"]["labels"] if "version" in label]
    assert not [label for label in pods[0]["metadata"]["labels"] if label.startswith("helm.sh")]


def test_workers_of_a_group_serve_nothing() -> None:
    leader, worker = server_pods(render(values_of("multinode")))
    assert leader["spec"]["containers"][0].keys() - worker["spec"]["containers"][0].keys() == {
        "ports",
        "startupProbe",
        "readinessProbe",
        "livenessProbe",
    }
    service = find(render(values_of("multinode")), "Service")
    index = "leaderworkerset.sigs.k8s.io/worker-index"
    assert service["spec"]["selector"][index] == "0"


def test_no_name_of_the_environment_is_twice_and_the_operators_comes_first() -> None:
    """The API server refuses a LeaderWorkerSet with two entries of a name."""
    given = {
        "NCCL_SOCKET_IFNAME": "eth1",
        "HOME": "/tmp",
        "HF_HUB_OFFLINE": "0",
        "INTERNVL_SERVE_LOG_FORMAT": "text",
        "NCCL_IB_HCA": "mlx5",
    }
    env = [{"name": name, "value": value} for name, value in given.items()]
    for name in ("default", "multinode"):
        for pod in server_pods(render(values_of(name) | {"env": env})):
            found = pod["spec"]["containers"][0]["env"]
            assert len(found) == len({one["name"] for one in found}), name
            assert {one["name"]: one["value"] for one in found} == given


def test_an_evicted_worker_counts_for_its_group() -> None:
    """An eviction ends its group, so a budget of leaders alone would let several end at once."""
    manifests = render(values_of("multinode"))
    budget = find(manifests, "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    index = "leaderworkerset.sigs.k8s.io/worker-index"
    leader, worker = server_pods(manifests)
    for place, pod in enumerate((leader, worker)):
        labels = pod["metadata"]["labels"] | {index: str(place)}  # as the controller adds it
        assert budget["selector"]["matchLabels"].items() <= labels.items()


def test_helm_test_may_ask_where_few_may() -> None:
    values = values_of("restricted")
    pods = pod_templates(render(values))
    asks = [pod for pod in pods if pod["spec"]["containers"][0]["name"] == "test"]
    requests = find(render(values), "NetworkPolicy")["spec"]["ingress"][0]
    selectors = [peer["podSelector"] for peer in requests["from"] if "podSelector" in peer]
    assert len(asks) == len(selectors) == 1
    labels = selectors[0]["matchLabels"]
    assert labels.items() <= asks[0]["metadata"]["labels"].items()
    assert labels["app.kubernetes.io/component"] == "test"
    policy = find(render(values | {"tests": {"enabled": False}}), "NetworkPolicy")
    assert policy["spec"]["ingress"][0]["from"] == values["networkPolicy"]["from"]
    everybody = values | {"networkPolicy": {"enabled": True}}
    assert "from" not in find(render(everybody), "NetworkPolicy")["spec"]["ingress"][0]


def test_pods_wait_for_the_revision_that_the_job_marks() -> None:
    manifests = render(values_of("gpu"))
    waits = server_pods(manifests)[0]["spec"]["initContainers"][0]["command"][-1]
    job = find(manifests, "Job")
    mark = waits.split()[3]
    assert mark.startswith("/models/.complete-")
    assert f"touch {mark}" in job["spec"]["template"]["spec"]["containers"][0]["args"][0]
    other = values_of("gpu")
    other["model"]["download"] = {"revision": "other"}
    assert mark not in yaml.safe_dump_all(render(other))


def test_a_changed_job_has_another_name() -> None:
    """A cluster refuses a change of a Job, and with it the whole upgrade."""
    values = values_of("gpu")
    names = {
        find(render(values | {"image": {"tag": tag}}), "Job")["metadata"]["name"] for tag in "ab"
    }
    assert len(names) == 2


def test_names_that_yaml_would_read_as_something_else() -> None:
    for name in ("y", "1", "null"):
        deployment = find(render({"fullnameOverride": name}), "Deployment")
        assert deployment["metadata"]["name"] == name


def test_replicas_are_left_to_the_autoscaler() -> None:
    assert find(render({}), "Deployment")["spec"]["replicas"] == 1
    for name in ("hpa", "keda"):
        assert "replicas" not in find(render(values_of(name)), "Deployment")["spec"]


def test_numbers_keep_their_digits() -> None:
    values = {"settings": {"max_body_bytes": 67108864, "target_step_ms": 37.5}}
    arguments = container(values)["args"]
    assert {"--max-body-bytes=67108864", "--target-step-ms=37.5"} <= set(arguments)


def test_a_setting_of_null_is_left_to_the_daemon() -> None:
    assert container({"settings": {"cpu_threads": None}}) == container({})


def test_every_volume_is_mounted_and_every_mount_has_a_volume() -> None:
    for profile in PROFILES:
        for pod in pod_templates(render(values_of(profile_name(profile)))):
            volumes = {volume["name"] for volume in pod["spec"].get("volumes", [])}
            containers = pod["spec"]["containers"] + pod["spec"].get("initContainers", [])
            mounts = {mount["name"] for one in containers for mount in one.get("volumeMounts", [])}
            assert volumes == mounts, profile.name


def test_every_value_is_in_the_readme() -> None:
    text = (CHART / "README.md").read_text(encoding="utf-8")
    for line in (CHART / "values.yaml").read_text(encoding="utf-8").splitlines():
        if line.startswith("## @param"):
            assert f"| `{line.split()[2]}`" in text, "run `make chart`"
