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


@pytest.mark.parametrize("given", ["a,b", " a , b ,", ",a,,b", ["a ", "b", ""]])
def test_blanks_and_empty_entries_are_no_names(given: str | list[str]) -> None:
    assert Settings(served_model_name=given).served_model_name == ("a", "b")
    assert Settings(api_keys=given).api_keys == ("a", "b")


@pytest.mark.parametrize("given", ["", " ", ",", " , ,"])
@pytest.mark.parametrize("field", ["api_keys", "served_model_name", "allowed_media_domains"])
def test_a_list_that_names_nothing_is_refused(
    monkeypatch: pytest.MonkeyPatch, field: str, given: str
) -> None:
    """Without keys, or without hosts, everybody and everything is let in: nobody may get there by
    an empty variable."""
    monkeypatch.setenv(f"INTERNVL_SERVE_{field.upper()}", given)
    with pytest.raises(ValidationError, match="it is given, but names nothing"):
        Settings()
    monkeypatch.delenv(f"INTERNVL_SERVE_{field.upper()}")
    assert getattr(Settings(), field) == ()


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
