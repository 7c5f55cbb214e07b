from __future__ import annotations

from pathlib import Path

import pytest

from server.errors import StartupError
from server.model.locate import locate
from server.model.spec import ModelSpec


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    assert locate(str(tmp_path), None) == tmp_path


def test_without_a_model_it_is_the_demo() -> None:
    assert ModelSpec.load(locate(None, None)).template == "Hermes-2"


@pytest.mark.parametrize("model", ["./missing", "/missing/model", "~/missing", "missing", "a/b/c"])
def test_what_cannot_be_a_hub_id_is_not_looked_for(model: str) -> None:
    with pytest.raises(StartupError, match="there is no such folder"):
        locate(model, None)


def test_a_hub_that_cannot_be_reached_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise OSError("offline")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(StartupError, match="the Hub did not provide it"):
        locate("owner/name", None)


def test_without_weights_none_are_downloaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[list[str]] = []

    def download(_: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    for weights in (True, False):
        assert locate("owner/name", None, weights=weights) == tmp_path
    assert "*.safetensors" in asked[0]
    assert "*.safetensors" not in asked[1]
