from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from server.settings import Settings


def test_the_model_is_named_after_its_folder_or_id(tmp_path: Path) -> None:
    assert Settings(model=str(tmp_path / "x")).names() == (str(tmp_path / "x"),)
    (tmp_path / "x").mkdir()
    assert Settings(model=str(tmp_path / "x")).names() == ("x",)
    repo = "OpenGVLab/InternVL-Chat-V1-2"
    assert Settings(model=repo).names() == (repo,)
    assert Settings().names() == ("internvl-demo",)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]


def test_json_and_back_is_the_same() -> None:
    settings = Settings(served_model_name=("a", "b"), kv_cache_gib=1.5)
    assert Settings(**settings.model_dump(mode="json")) == settings


@pytest.mark.parametrize("wanted", ["int4-vision", "vit:int4", "all"])
def test_the_vision_tower_is_not_quantised(wanted: str) -> None:
    with pytest.raises(ValidationError, match="no longer understands pictures"):
        Settings(quantization=wanted)


def test_unknown_quantizations_are_refused() -> None:
    with pytest.raises(ValidationError, match="'none', 'int8', 'fp8' or 'int4'"):
        Settings(quantization="int2")


def test_what_starts_a_group_of_hosts_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "LWS_GROUP_SIZE": "4",
        "LWS_WORKER_INDEX": "2",
        "LWS_LEADER_ADDRESS": "group-0.group",
        "MASTER_PORT": "29400",
        "MASTER_ADDR": "elsewhere",
    }.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert (settings.nnodes, settings.node_rank) == (4, 2)
    assert (settings.master_addr, settings.master_port) == ("group-0.group", 29400)
    # Our own variable wins, and a flag before all: children get the settings as arguments.
    monkeypatch.setenv("INTERNVL_SERVE_NNODES", "3")
    assert Settings().nnodes == 3
    assert Settings(nnodes=2).nnodes == 2
    assert Settings(**settings.model_dump(mode="json")) == settings
    monkeypatch.delenv("LWS_GROUP_SIZE")
    monkeypatch.delenv("INTERNVL_SERVE_NNODES")
    monkeypatch.setenv("GROUP_WORLD_SIZE", "5")
    assert Settings().nnodes == 5
