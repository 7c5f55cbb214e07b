"""From settings to a runner: weights that are read, and weights that are made up."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from server.errors import CheckpointError
from server.runner.build import (
    RankPlace,
    build_rank,
    choose_dtype,
    settle_budget,
    target_step_s,
)
from server.settings import Settings
from tests import golden
from tests.engine.harness import Harness
from tests.runner.requests import ask_golden

CPU = torch.device("cpu")

SMALL: dict[str, Any] = {
    "device": "cpu",
    "dtype": "float32",
    "kv_cache_blocks": 32,
    "cpu_threads": 1,
}


@pytest.fixture
def config_alone(tmp_path: Path) -> Path:
    """A checkpoint before its weights are downloaded."""
    shutil.copy(golden.CHECKPOINT / "config.json", tmp_path)
    return tmp_path


def answer(settings: Settings, folder: Path) -> list[int]:
    runner = build_rank(settings, folder, RankPlace())
    settle_budget(runner, settings)
    harness = Harness(runner)
    asked = ask_golden("image_single")
    harness.submit(asked.numbered(0), asked.pixels)
    harness.run()
    runner.close()
    return harness.tokens(0)


@pytest.mark.parametrize(
    ("device", "chosen_ms", "step_s"), [("cpu", None, 0.5), ("cuda", None, 0.05), ("cpu", 80, 0.08)]
)
def test_steps_are_longer_on_a_cpu_unless_their_length_is_chosen(
    device: str, chosen_ms: float | None, step_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert target_step_s(Settings(device=device, target_step_ms=chosen_ms)) == step_s


def test_weights_that_are_read() -> None:
    expected = golden.case("image_single")["generated_ids"]
    assert answer(Settings(**SMALL), golden.CHECKPOINT) == expected


def test_weights_that_are_made_up_need_no_files_and_are_the_same_each_time(
    config_alone: Path,
) -> None:
    settings = Settings(load_format="dummy", **SMALL)
    first = answer(settings, config_alone)
    assert len(set(first)) > 1, "weights that mean nothing still make a difference"
    assert answer(settings, config_alone) == first
    with pytest.raises(CheckpointError):
        build_rank(Settings(**SMALL), config_alone, RankPlace())


def test_float16_is_served_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert choose_dtype("float16", "bfloat16", CPU) == torch.float16
    assert "vision tower's residual stream is large and may overflow" in caplog.text


@pytest.mark.parametrize("name", ["bfloat16", "float32"])
def test_other_types_need_none(name: str, caplog: pytest.LogCaptureFixture) -> None:
    assert choose_dtype(name, "float16", CPU) == getattr(torch, name)
    assert not caplog.text
