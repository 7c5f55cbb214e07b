from __future__ import annotations

import json
from array import array
from pathlib import Path

import pytest
import torch

from server.engine.plan import Install, Row, StepPlan
from server.messages import SamplingParams
from server.runner.build import RankPlace, build_rank
from server.runner.profile import StepProfile
from server.settings import Settings
from tests import golden

CPU = torch.device("cpu")


def names(path: Path) -> list[str]:
    return [event.get("name", "") for event in json.loads(path.read_text("utf-8"))["traceEvents"]]


def test_the_first_steps_are_in_the_trace_and_no_other(tmp_path: Path) -> None:
    profile = StepProfile(2, tmp_path / "trace.json", CPU)
    value = torch.ones(3)
    assert profile.run(lambda: value.add(1)).tolist() == [2, 2, 2]
    assert not (tmp_path / "trace.json").exists()
    profile.run(lambda: value.mul(2))
    profile.run(lambda: value.div(2))
    found = names(tmp_path / "trace.json")
    assert {"aten::add", "aten::mul"} <= set(found)
    assert "aten::div" not in found


def test_a_folder_that_is_not_there_is_no_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    profile = StepProfile(1, tmp_path / "no" / "trace.json", CPU)
    assert profile.run(lambda: 5) == 5
    assert "the trace of steps could not be written" in caplog.text


@pytest.mark.parametrize("steps", [0, 2])
def test_a_runner_is_profiled_where_the_settings_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings(device="cpu", dtype="float32", kv_cache_blocks=64, profile_steps=steps)
    runner = build_rank(settings, golden.CHECKPOINT, RankPlace())
    install = Install(
        slot=0,
        tokens=array("i", range(9)).tobytes(),
        prompt_length=9,
        computed=0,
        blocks=[0],
        sampling=SamplingParams(temperature=0.0),
    )
    runner.rehearse(StepPlan(0, installs=[install], rows=[Row(0, 9)]))
    for plan in (StepPlan(0, installs=[install], rows=[Row(0, 9)]), StepPlan(1, rows=[Row(0, 1)])):
        runner.launch(plan).result()
    runner.close()
    files = [file.name for file in tmp_path.iterdir()]
    assert files == (["internvl-serve-steps-rank0.json"] if steps else [])
