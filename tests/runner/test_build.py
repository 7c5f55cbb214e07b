"""From settings to a runner: weights that are read, and weights that are made up."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from server.errors import CheckpointError
from server.model.reading import Progress
from server.runner.build import (
    RankPlace,
    build_rank,
    check_weights,
    choose_dtype,
    log_progress,
    settle_budget,
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


def test_progress_is_told_every_few_seconds_and_at_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tell = log_progress()
    with caplog.at_level(logging.INFO):
        for done, elapsed_s in ((1, 1.0), (2, 5.5), (3, 6.0), (4, 8.0)):
            tell(Progress(done * 2**30, 4 * 2**30, elapsed_s))
    assert [record.getMessage() for record in caplog.records] == [
        "loaded 2.00 of 4.00 GiB at 0.39 GB/s, 6 s left",
        "loaded 4.00 of 4.00 GiB at 0.54 GB/s",
    ]


def test_a_wrong_plan_is_told(caplog: pytest.LogCaptureFixture) -> None:
    check_weights(1000, 1049)
    assert not caplog.text
    check_weights(1000, 1051)
    assert "the plan of memory is wrong by more than 5 %" in caplog.text
