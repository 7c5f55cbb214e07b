from __future__ import annotations

import json
import math
from pathlib import Path
from typing import get_args

import pytest

from server.cli import main
from server.layout import Gpus, Layout
from server.model.spec import parse_config
from server.planner import verdict
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
    assert "does not fit: rank 0 lacks" in verdict(layout)
    assert advice in verdict(layout)


def planned(
    capsys: pytest.CaptureFixture[str], folder: Path, *flags: str
) -> tuple[str | int | None, str]:
    """Exit status of `plan`, and what it has printed."""
    with pytest.raises(SystemExit) as ended:
        main(["plan", "--model", str(folder), *flags])
    return ended.value.code, capsys.readouterr().out


def test_the_command_prints_a_table_for_each_set(
    real_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, page = planned(capsys, real_folder, "--gpus", "2x80GB", "--gpus", "1x24GB")
    assert status == 1
    assert "2 x 80 GB, --tensor-parallel-size 2, bfloat16" in page
    assert "| 1 | 0 | 0-59 | 28 (4) |" in page
    assert "\nfits: " in page
    assert "\ndoes not fit: " in page


def test_stages_are_columns_of_the_table(
    real_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--gpus", "4x48GB", "--tensor-parallel-size", "2", "--pipeline-parallel-size", "2"]
    status, page = planned(capsys, real_folder, *flags)
    assert status == 0
    assert "4 x 48 GB, --tensor-parallel-size 2 --pipeline-parallel-size 2, bfloat16" in page
    assert "| 0 | 1 | 25-59 | 28 (4) | 10240 | 0 |" in page
    assert "| 2 | 0 | 0-24 | 28 (4) | 10240 | 13 |" in page
    assert "vision: 1 tower of 2 ranks, in the first stage" in page
    assert "balance: the fullest rank holds 0.3 % more than the mean" in page
    assert "one every " in page


@pytest.mark.parametrize(
    ("flags", "cards"),
    [
        (["--tensor-parallel-size", "4"], "4 x 32 GB"),
        (["--pipeline-parallel-size", "3"], "3 x 32 GB"),
        (["--tensor-parallel-size", "1"], "1 x 96 GB"),
        (["--tensor-parallel-size", "1", "--dtype", "float32"], "1 x 192 GB"),
        (["--tensor-parallel-size", "4", "--pipeline-parallel-size", "2"], "8 x 24 GB"),
    ],
)
def test_the_smallest_cards_for_a_layout(
    real_folder: Path, capsys: pytest.CaptureFixture[str], flags: list[str], cards: str
) -> None:
    status, page = planned(capsys, real_folder, *flags)
    assert status == 0
    assert f"{cards}, " in page


def test_what_cannot_be_planned_is_one_line() -> None:
    with pytest.raises(SystemExit, match="write 4x48GB"):
        main(["plan", "--model", str(golden.CHECKPOINT), "--gpus", "4x"])
    with pytest.raises(SystemExit, match="there is no such folder"):
        main(["plan", "--model", "./nowhere", "--gpus", "1x24GB"])
    with pytest.raises(SystemExit, match="give --gpus, or --tensor-parallel-size"):
        main(["plan", "--model", str(golden.CHECKPOINT)])
    with pytest.raises(SystemExit, match="--pipeline-parallel-size 0: give a number from 1 on"):
        main(["plan", "--model", str(golden.CHECKPOINT), "--pipeline-parallel-size", "0"])
    with pytest.raises(SystemExit, match="--vision-tensor-parallel-size 0: give a number from 1"):
        flags = ["--gpus", "4x48GB", "--vision-tensor-parallel-size", "0"]
        main(["plan", "--model", str(golden.CHECKPOINT), *flags])


@pytest.mark.parametrize("quantization", get_args(Quantization))
def test_nothing_fits_one_card_of_24_gb(quantization: Quantization) -> None:
    layout = Layout.make(REAL, Gpus(1, 24), quantization=quantization)
    assert not layout.fits
    assert "lacks" in verdict(layout)
    assert "--quantization" not in verdict(layout)


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


@pytest.fixture(scope="module")
def real_headers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published folder with names, types and shapes, and no data."""
    folder = tmp_path_factory.mktemp("40b")
    (folder / "config.json").write_text(json.dumps(PUBLISHED))
    write_headers(folder, published_shapes())
    return folder


@pytest.mark.parametrize(
    ("gpus", "quantization", "fits"),
    [
        ("1x141GB", "none", True),
        ("2x80GB", "none", True),
        ("4x48GB", "none", True),
        ("8x24GB", "none", True),
        ("3x48GB", "none", True),
        ("1x80GB", "none", False),
        ("1x80GB", "fp8", True),
        ("1x80GB", "int8", True),
        ("1x48GB", "int8", False),
        ("1x48GB", "int4", True),
        ("1x24GB", "int4", False),
    ],
)
def test_the_published_headers(
    real_headers: Path,
    capsys: pytest.CaptureFixture[str],
    gpus: str,
    quantization: Quantization,
    fits: bool,
) -> None:
    flags = ["--gpus", gpus, "--quantization", quantization]
    status, page = planned(capsys, real_headers, *flags)
    assert status == (0 if fits else 1)
    assert "the headers of 1138 tensors" in page
    assert ("\nfits: " in page) == fits
    assert ("GiB for one context of 4096. " in page) != fits
    if quantization != "none":
        assert f"language model in {quantization}, the rest in bfloat16" in page


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
