"""The daemon understands the pods that the chart makes: its own parser and settings read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scripts import chart_files
from server.cli import build_parser
from server.settings import ENV_PREFIX, Settings
from tests.deploy.chart import PROFILES, profile_name, render, server_pods, values_of

GROUP = {
    "LWS_GROUP_SIZE": "2",
    "LWS_WORKER_INDEX": "1",
    "LWS_LEADER_ADDRESS": "demo-0.demo.serving",
}
"""What the controller adds to every container of a group of two."""


def settings_of(pod: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What the daemon in this pod would run with."""
    container = pod["spec"]["containers"][0]
    arguments = container["args"]
    for name, value in GROUP.items():
        arguments = [argument.replace(f"$({name})", value) for argument in arguments]
    for variable in container["env"]:
        if variable["name"].startswith(ENV_PREFIX):
            monkeypatch.setenv(variable["name"], variable["value"])
    flags = vars(build_parser().parse_args(arguments))
    assert flags.pop("command") == "serve"
    return Settings(**flags)


@pytest.mark.parametrize("profile", PROFILES, ids=profile_name)
def test_the_daemon_takes_every_profile(profile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = values_of(profile_name(profile))
    for pod in server_pods(render(values)):
        settings = settings_of(pod, monkeypatch)
        assert settings.port == 8000
        assert settings.log_format == "json"
        for name, value in values.get("settings", {}).items():
            assert getattr(settings, name) == value
        if values.get("parallel", {}).get("nodes"):
            assert (settings.nnodes, settings.node_rank) == (2, 1)
            assert settings.master_addr == GROUP["LWS_LEADER_ADDRESS"]
        assert settings.tensor_parallel_size == values.get("parallel", {}).get("tensor", 1)


@pytest.mark.parametrize("settings", [{}, {"shutdown_timeout_s": 7.3}, {"shutdown_timeout_s": 60}])
def test_a_pod_is_not_killed_while_the_daemon_ends(
    settings: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    drain = {"graceSeconds": 10, "timeoutSeconds": 120, "marginSeconds": 10}
    pod = server_pods(render({"drain": drain, "settings": settings}))[0]
    found = settings_of(pod, monkeypatch)
    waits_s = found.drain_grace_s + found.drain_timeout_s + 2 * found.shutdown_timeout_s
    assert pod["spec"]["terminationGracePeriodSeconds"] >= waits_s + 10


def test_every_setting_has_a_place_in_the_values() -> None:
    known = chart_files.settings_schema()["properties"].keys()
    assert known == Settings.model_fields.keys() - chart_files.COMPUTED


def test_files_of_the_chart_are_those_of_the_daemon() -> None:
    assert chart_files.SCHEMA.read_text(encoding="utf-8") == chart_files.schema_text()
    for copy, original in chart_files.COPIES.items():
        assert copy.read_bytes() == original.read_bytes(), f"{copy}: run `make chart`"


def test_keys_and_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    pod = server_pods(render(values_of("restricted")))[0]
    settings = settings_of(pod, monkeypatch)
    found = settings.model_dump()
    assert found["ops_port"] == 9090
    assert found["ops_host"] == "0.0.0.0"
    mounts = pod["spec"]["containers"][0]["volumeMounts"]
    assert str(Path(str(found["api_key_file"])).parent) in {one["mountPath"] for one in mounts}
