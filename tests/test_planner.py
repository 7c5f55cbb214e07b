from __future__ import annotations

import json
from pathlib import Path

import pytest

from server.cli import main
from server.errors import StartupError
from server.model.spec import parse_config
from server.planner import GIB, Gpus, Layout
from tests import golden
from tests.model.test_spec import PUBLISHED

REAL = parse_config(PUBLISHED)


@pytest.fixture
def real_folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED))
    return tmp_path


@pytest.mark.parametrize(
    ("gpus", "contexts"),
    [("1x141GB", 50), ("2x80GB", 60), ("4x48GB", 80), ("8x24GB", 70), ("3x48GB", 40)],
)
def test_the_40b_fits_what_it_should(gpus: str, contexts: int) -> None:
    layout = Layout.make(REAL, Gpus.parse(gpus))
    assert layout.fits
    assert contexts * 0.75 < layout.contexts < contexts * 1.35


@pytest.mark.parametrize(
    ("gpus", "advice"),
    [
        ("1x80GB", "2 cards of 80 GB would do"),
        ("1x48GB", "2 cards of 48 GB would do"),
        ("1x24GB", "4 cards of 24 GB would do"),
        ("1x8GB", "Not even 8"),
    ],
)
def test_what_does_not_fit_says_what_would(gpus: str, advice: str) -> None:
    layout = Layout.make(REAL, Gpus.parse(gpus))
    assert not layout.fits
    assert "does not fit: rank 0 lacks" in layout.verdict()
    assert advice in layout.verdict()


def test_a_tower_for_each_rank_costs_its_memory() -> None:
    together, apart = (Layout.make(REAL, Gpus(4, 48), vision_tp) for vision_tp in (4, 1))
    assert apart.ranks[0].vision / GIB == pytest.approx(10.6, abs=0.1)
    assert together.ranks[0].vision / GIB == pytest.approx(2.65, abs=0.1)
    assert apart.kv_tokens < together.kv_tokens


def test_the_floor_is_one_read_of_the_language_model() -> None:
    assert Layout.make(REAL, Gpus(1, 141)).step_floor_ms == pytest.approx(16.0, abs=0.3)


@pytest.mark.parametrize("text", ["", "x", "0x48GB", "9x48GB", "4x", "4x0GB", "4 48"])
def test_a_set_of_gpus_is_written_in_one_way(text: str) -> None:
    with pytest.raises(StartupError, match="write 4x48GB"):
        Gpus.parse(text)


def test_one_card_needs_no_number() -> None:
    assert Gpus.parse("80gb") == Gpus(1, 80)


def test_the_command_prints_a_table_for_each_set(
    real_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["plan", "--model", str(real_folder), "--gpus", "2x80GB", "--gpus", "1x24GB"])
    page = capsys.readouterr().out
    assert ended.value.code == 1
    assert "2 x 80 GB" in page
    assert "| 1 | 28 (4) |" in page
    assert "\nfits: " in page
    assert "\ndoes not fit: " in page


def test_what_cannot_be_planned_is_one_line() -> None:
    with pytest.raises(SystemExit, match="write 4x48GB"):
        main(["plan", "--model", str(golden.CHECKPOINT), "--gpus", "9x24GB"])
    with pytest.raises(SystemExit, match="there is no such folder"):
        main(["plan", "--model", "./nowhere", "--gpus", "1x24GB"])
