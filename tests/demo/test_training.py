from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from server.demo.examples import Recipe
from server.demo.training import LOG, STATE, Stage, Training
from server.model.spec import ModelSpec
from server.model.weights import load_model
from tests.demo.support import SMALL

CPU = torch.device("cpu")
RECIPE = Recipe(size_px=112, grid=2, pictures=2, tokens=60)


def trained(run: Path, *steps: int) -> Training:
    """A run that was interrupted after each of the given numbers of steps but the last."""
    training = Training(run, SMALL, 0, CPU)
    for end in steps:
        training = Training(run, SMALL, 0, CPU)
        training.stage(Stage(RECIPE, steps=end), 0, workers=1)
    return training


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    trained(tmp_path / "whole", 4)
    trained(tmp_path / "parts", 1, 4)
    whole, parts = (load_file(tmp_path / run / STATE) for run in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, parts[name]), name


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    trained(tmp_path, 40)
    lines = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [line["step"] for line in lines] == [20, 40]
    assert lines[1]["answers"] < lines[0]["answers"] - 0.5


def test_the_export_is_a_checkpoint_that_the_server_loads(tmp_path: Path) -> None:
    training = trained(tmp_path / "run", 1)
    folder = tmp_path / "checkpoint"
    training.export(folder)
    model = load_model(folder, ModelSpec.load(folder), torch.float32, CPU)
    average = load_file(tmp_path / "run" / STATE)
    expected = average["average.language_model.lm_head.weight"].bfloat16().float()
    assert torch.equal(model.language.lm_head.weight, expected)


@pytest.mark.parametrize(("step", "rate"), [(0, 1 / 30), (29, 0.855), (60, 0.7), (99, 0.505)])
def test_the_learning_rate_warms_up_and_falls(step: int, rate: float) -> None:
    stage = Stage(RECIPE, steps=100, rates=(1.0, 0.5))
    assert stage.rate(step) == pytest.approx(rate)
