from __future__ import annotations

import json
import math
from pathlib import Path
from typing import get_args

import pytest

from server.cli import main
from server.errors import StartupError
from server.model.spec import parse_config
from server.planner import GIB, Gpus, Layout
from server.settings import Quantization
from tests import golden
from tests.model.test_spec import PUBLISHED
from tests.published import published_shapes

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
        (
            "1x80GB",
            "--quantization int8 or 2 cards of 80 GB would do",
        ),
        (
            "1x48GB",
            "--quantization int4 or 2 cards of 48 GB would do",
        ),
        ("1x24GB", "5 cards of 24 GB or 2 cards of 24 GB with int4 would do"),
        ("1x8GB", "7 cards of 8 GB with int4 would do"),
        ("1x4GB", "Not even 8 of these cards would do"),
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


@pytest.mark.parametrize(
    ("gpus", "quantization"),
    [("1x80GB", "int8"), ("1x80GB", "fp8"), ("1x48GB", "int4"), ("2x24GB", "int4")],
)
def test_fewer_bits_fit_smaller_cards(gpus: str, quantization: Quantization) -> None:
    assert not Layout.make(REAL, Gpus.parse(gpus)).fits
    assert Layout.make(REAL, Gpus.parse(gpus), quantization=quantization).fits


@pytest.mark.parametrize("quantization", get_args(Quantization))
def test_nothing_fits_one_card_of_24_gb(quantization: Quantization) -> None:
    layout = Layout.make(REAL, Gpus(1, 24), quantization=quantization)
    assert not layout.fits
    assert "lacks" in layout.verdict()
    assert "--quantization" not in layout.verdict()


def write_headers(folder: Path, shapes: dict[str, list[int]], files: int = 17) -> None:
    """Weight files that end where their data would begin."""
    names = sorted(shapes)
    for index in range(files):
        entries, offset = {}, 0
        for name in names[index::files]:
            size = 2 * math.prod(shapes[name])
            entries[name] = {
                "dtype": "BF16",
                "shape": shapes[name],
                "data_offsets": [offset, offset + size],
            }
            offset += size
        header = json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
        path = folder / f"model-{index + 1:05}-of-{files:05}.safetensors"
        path.write_bytes(len(header).to_bytes(8, "little") + header)


def test_headers_of_the_40b_are_compared(
    real_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_headers(real_folder, published_shapes())
    with pytest.raises(SystemExit) as ended:
        main(["plan", "--model", str(real_folder), "--gpus", "1x80GB", "--quantization", "fp8"])
    page = capsys.readouterr().out
    assert ended.value.code == 0
    assert "the headers of 1138 tensors" in page
    assert "language model in fp8, the rest in bfloat16" in page


@pytest.mark.parametrize(
    ("name", "part"),
    [("language_model.lm_head.weight", "language model"), ("mlp1.0.bias", "vision")],
)
def test_headers_of_another_model(real_folder: Path, name: str, part: str) -> None:
    shapes = published_shapes()
    shapes[name][0] += 1
    write_headers(real_folder, shapes)
    with pytest.raises(SystemExit, match=rf"the weight files hold \d+ parameters of the {part}"):
        main(["plan", "--model", str(real_folder), "--gpus", "1x80GB"])


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 100, b"\x02\0\0\0\0\0\0\0[]", b"\x09\0\0\0\0\0\0\0"]
)
def test_headers_that_are_none(real_folder: Path, content: bytes) -> None:
    (real_folder / "model.safetensors").write_bytes(content)
    with pytest.raises(SystemExit, match=r"model\.safetensors cannot be read"):
        main(["plan", "--model", str(real_folder), "--gpus", "1x80GB"])
