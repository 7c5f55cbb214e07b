"""Every profile under ci/, rendered by both Helms and held against strict schemas."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import helm_python as helm4
import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.deploy import schemas
from tests.deploy.chart import (
    CHART,
    PROFILES,
    RefusedError,
    find,
    profile_name,
    render,
    render_for,
    values_of,
)

GOLDEN = Path(__file__).parent / "golden"
OLDEST, DRA, NEWEST = "1.29.0", "1.34.0", f"{kubernetes_validate.latest_version()}"
NEEDS = {"dra": "needs Kubernetes 1.34", "2x80": "need Kubernetes 1.33"}
"""Profiles that the oldest version cannot have, and what they are told."""

profiles = pytest.mark.parametrize("profile", PROFILES, ids=profile_name)


@profiles
@pytest.mark.parametrize("version", [OLDEST, DRA, NEWEST])
def test_a_cluster_takes_every_manifest(profile: Path, version: str) -> None:
    told = NEEDS.get(profile_name(profile))
    if told and version == OLDEST:
        with pytest.raises(RefusedError, match=told):
            render_for(version, profile)
        return
    schemas.check(render_for(version, profile), ".".join(version.split(".")[:2]))


@profiles
def test_helm_4_renders_what_helm_3_renders(profile: Path) -> None:
    def key(manifest: dict[str, Any]) -> tuple[str, str]:
        return manifest["kind"], manifest["metadata"]["name"]

    ours = sorted(render(values_of(profile_name(profile))), key=key)
    assert ours == sorted(render_for(NEWEST, profile), key=key)


@profiles
def test_renders_are_the_golden_ones(profile: Path, update_golden: bool) -> None:
    manifests = render(values_of(profile_name(profile)))
    for manifest in manifests:  # tested against their originals elsewhere
        if manifest["metadata"]["name"].endswith("-dashboard"):
            manifest["data"] = dict.fromkeys(manifest["data"], "...")
        if manifest["kind"] == "PrometheusRule":
            manifest["spec"] = {}
    golden = GOLDEN / f"{profile_name(profile)}.yaml"
    text = yaml.safe_dump_all(manifests, sort_keys=True, width=100)
    if update_golden:
        golden.write_text(text, encoding="utf-8")
    assert golden.read_text(encoding="utf-8") == text, "see --update-golden"


@profiles
def test_helm_finds_nothing_to_complain_of(profile: Path) -> None:
    report = helm4.lint(str(CHART), values_of(profile_name(profile)), strict=True)
    messages = report.get("messages") or []
    assert not [one for one in messages if one["severity"] not in ("INFO", 1)], messages


def test_kinds_of_other_operators_pass_their_models() -> None:
    names = [profile_name(profile) for profile in PROFILES]
    every = [one for name in names for one in render(values_of(name))]
    assert schemas.check_models(every) >= 6
    with pytest.raises(AssertionError):
        schemas.check_models([{**find(render(values_of("keda")), "ScaledObject"), "spec": {}}])


def test_the_schemas_are_strict() -> None:
    """Or the tests above could not fail."""
    service = find(render({}), "Service")
    service["spec"]["prots"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        schemas.check([service], "1.34")
    group = find(render(values_of("multinode")), "LeaderWorkerSet")
    for change in ({"replica": 2}, {"replicas": "two"}):
        wrong = copy.deepcopy(group)
        wrong["spec"] |= change
        with pytest.raises(jsonschema.ValidationError):
            schemas.check([wrong], "1.34")
    pool = find(render(values_of("gateway")), "InferencePool")
    del pool["spec"]["targetPorts"]
    with pytest.raises(jsonschema.ValidationError):
        schemas.check([pool], "1.34")
