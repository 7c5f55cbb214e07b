"""Strict schemas of everything that the chart makes: an unknown field is an error.

Kubernetes' own kinds by kubernetes-validate, LeaderWorkerSet and InferencePool by their CRDs, kinds
of the Prometheus operator, KEDA and the Gateway API by the models of kubernetes-models (node).
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate

from tests.deploy.chart import ROOT, Manifest, pod_templates

HERE = Path(__file__).parent
CRDS = {"LeaderWorkerSet": "leaderworkerset", "InferencePool": "inferencepool"}
MODELS = {"PodMonitor", "PrometheusRule", "ScaledObject", "HTTPRoute"}


def strict(schema: Any) -> Any:
    """The schema of a CRD in which an unknown field is an error, not dropped as the API server
    does."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: strict(value) for key, value in schema.items()}
    if schema.pop("x-kubernetes-int-or-string", False):
        schema["type"] = ["integer", "string"]
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(schema.get("properties"), dict) and not open_ended:
        schema.setdefault("additionalProperties", False)
    return schema


def check(manifests: list[Manifest], version: str) -> None:
    """Fails on a manifest that a cluster of this version would not take as it is written.

    Raises:
        jsonschema.ValidationError, kubernetes_validate.ValidationError, AssertionError: it would
            not.
    """
    for manifest in manifests:
        kind = manifest["kind"]
        if kind in CRDS:
            schema = json.loads((HERE / f"crds/{CRDS[kind]}.json").read_text(encoding="utf-8"))
            top = {"properties": schema["properties"] | {"metadata": {"type": "object"}}}
            jsonschema.validate(manifest, strict(schema | top))
        elif kind not in MODELS:
            kubernetes_validate.validate(manifest, version, strict=True)
    for pod in pod_templates(manifests):
        whole = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", **pod["metadata"]}}
        kubernetes_validate.validate(whole | {"spec": pod["spec"]}, version, strict=True)


def check_models(manifests: list[Manifest]) -> int:
    """Validates the kinds of other operators; returns how many there were."""
    ours = [one for one in manifests if one["kind"] in MODELS]
    done = subprocess.run(
        ["node", "validate.mjs"],
        cwd=ROOT / ".cache/deploy",
        input=json.dumps(ours),
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)
