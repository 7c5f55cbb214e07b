"""What must not be installed is refused, from the archive that operators get."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import helm_python as helm4
import pytest

from tests.deploy.chart import CHART, RefusedError, render

GPU = {"accelerator": {"type": "nvidia"}}
CLAIM = {"model": {"source": "pvc", "pvc": {"existingClaim": "weights"}}}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package")
    return Path(helm4.package(str(CHART), destination=str(folder)))


def test_the_archive_holds_the_schema_and_no_profiles(archive: Path) -> None:
    with tarfile.open(archive) as files:
        names = {name.removeprefix("internvl-serve/") for name in files.getnames()}
    assert {"values.schema.json", "files/rules.yml", "files/dashboard.json"} <= names
    assert not [name for name in names if name.startswith("ci")]


def test_the_archive_renders(archive: Path) -> None:
    assert render({}, archive) == render({})


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"replicaCuont": 2}, "replicaCuont"),
        ({"model": {"sorce": "pvc"}}, "sorce"),
        ({"settings": {"max_num_seq": 4}}, "max_num_seq"),
        ({"settings": {"max_num_seqs": 0}}, "max_num_seqs"),
        ({"settings": {"port": 9000}}, "port"),
        ({"settings": {"dtype": "float8"}}, "dtype"),
        ({"parallel": {"tensor": 9}}, "tensor"),
        ({"drain": {"marginSeconds": 0}}, "marginSeconds"),
        ({"model": {"folder": "/etc"}}, "folder"),
        ({"image": {"digest": "latest"}}, "digest"),
        ({"accelerator": {"type": "tpu"}}, "type"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value,
)
def test_typos_are_named(archive: Path, values: dict[str, Any], named: str) -> None:
    with pytest.raises(RefusedError, match=named):
        render(values, archive)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"parallel": {"tensor": 3, "nodes": 2}}, "cannot share evenly"),
        (GPU | {"resources": {"limits": {"nvidia.com/gpu": 1}}}, "leave nvidia.com/gpu out"),
        (GPU | {"parallel": {"tensor": 2}}, "demo is a tiny checkpoint"),
        ({"model": {"source": "pvc"}}, "model.pvc.existingClaim"),
        ({"model": {"source": "hostPath"}}, "model.hostPath.path"),
        ({"model": {"source": "image", "image": {"reference": "a:latest"}}}, "by digest"),
        ({"accelerator": {"mode": "dra"}}, "dra claims GPUs"),
        ({"strategy": {"maxSurge": 0}}, "no update would ever happen"),
        ({"autoscaling": {"kind": "hpa", "minReplicas": 5}}, "minReplicas is above"),
        ({"httpRoute": {"enabled": True}}, "httpRoute.parentRefs"),
        ({"ingress": {"enabled": True}}, "ingress.hosts"),
        ({"inferencePool": {"enabled": True}}, "endpointPicker.name"),
        (
            {"inferencePool": {"enabled": True, "endpointPicker": {"name": "a"}}, "opsPort": 9090},
            "leave opsPort out",
        ),
        (
            {
                "inferencePool": {"enabled": True, "endpointPicker": {"name": "a"}},
                "settings": {"vllm_metrics": False},
            },
            "leave settings.vllm_metrics true",
        ),
        ({"opsPort": 8000}, "choose another"),
        ({"parallel": {"tensor": 2, "nodes": 2, "masterPort": 8000}}, "parallel.masterPort"),
        (CLAIM | {"accelerator": {"type": "amd"}}, "no image for amd"),
        (
            {
                "parallel": {"tensor": 2, "nodes": 2},
                "podDisruptionBudget": {"maxUnavailable": "25%"},
            },
            "number of groups",
        ),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value,
)
def test_impossible_combinations_are_explained(
    archive: Path, values: dict[str, Any], told: str
) -> None:
    with pytest.raises(RefusedError, match=told):
        render(values, archive)


@pytest.mark.parametrize("image", [{"tag": "rocm"}, {"digest": f"sha256:{'a' * 64}"}])
def test_an_image_of_ones_own_may_be_for_amd(archive: Path, image: dict[str, str]) -> None:
    assert render(CLAIM | {"accelerator": {"type": "amd"}, "image": image}, archive)


def test_a_chart_of_charts_may_have_it(archive: Path) -> None:
    """Helm hands `global` to every chart under another."""
    assert render(CLAIM | {"global": {"anything": 1}}, archive)
