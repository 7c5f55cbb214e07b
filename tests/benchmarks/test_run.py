"""The script that has ten minutes of a GPU must not meet its first fault there."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.run import KERNELS, build_parser, main
from benchmarks.gpu.sweeps import SWEEPS, Rows
from tests import golden

ALL = Path(__file__).parents[2] / "benchmarks/gpu/all.sh"
TINY = ["--device", "cpu", "--shape", str(golden.CHECKPOINT)]


def results(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "results.json").read_text())
    return found


def test_every_part_on_a_small_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*KERNELS, *SWEEPS, "--out", str(tmp_path), *TINY])
    assert ended.value.code == 0
    (run,) = results(tmp_path)
    assert run["parts"].keys() == {*KERNELS, *SWEEPS, "start"}
    for rows in run["parts"].values():
        assert rows
        for row in rows:
            assert row.get("share") is None or row["share"] > 0
    assert "greedy tokens" in capsys.readouterr().out


def test_a_part_that_fails_is_recorded(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="flash-attn needs a CUDA device"):
        main(["decode", "--attention", "flash_attn", "--out", str(tmp_path), *TINY])
    (run,) = results(tmp_path)
    assert "flash-attn needs a CUDA device" in run["fault"]


@pytest.mark.parametrize("fault", [RuntimeError("lost"), KeyboardInterrupt()])
def test_what_came_before_a_fault_is_kept(
    fault: BaseException,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object) -> Rows:
        assert results(tmp_path)[1]["parts"].keys() == {"decode"}, "a process may be killed here"
        raise fault

    monkeypatch.setitem(SWEEPS, "prefill", fail)
    (tmp_path / "results.json").write_text('[{"seconds": 1}]')
    with pytest.raises(type(fault)):
        main(["decode", "prefill", "--out", str(tmp_path), *TINY])
    earlier, run = results(tmp_path)
    assert earlier == {"seconds": 1}
    assert run["parts"]["decode"]
    assert type(fault).__name__ in run["fault"]
    assert "-- decode" in capsys.readouterr().out


def test_one_call_runs_all_and_goes_on_after_failures(tmp_path: Path) -> None:
    """With a python that notes what it was asked for, and fails where it is asked to check."""
    python = tmp_path / "python"
    script = f'echo "$*" >>{tmp_path}/calls; case "$*" in *checks*) exit 3;; esac'
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    environment = os.environ | {"PYTHON": str(python), "RUN_FLAGS": "--device cpu"}
    command = [str(ALL), str(tmp_path / "out")]
    done = subprocess.run(command, env=environment, check=False, capture_output=True)
    assert done.returncode == 0
    summary = (tmp_path / "out/summary").read_text()
    assert "checks: exit 3" in summary
    assert summary.count("exit 0") >= 7
    calls = [line.split() for line in (tmp_path / "calls").read_text().splitlines()]
    runs = [words[2:] for words in calls if "benchmarks.gpu.run" in words]
    asked = [build_parser().parse_args(words) for words in runs]
    assert {part for one in asked for part in one.parts} == {*KERNELS, *SWEEPS}
    assert {one.attention for one in asked} >= {"auto", "triton", "torch"}
    assert any(one.no_graphs for one in asked)
    assert any(one.ops == "torch" for one in asked)


def test_one_call_takes_less_than_ten_minutes() -> None:
    limits = re.findall(r"^(?:run|part) (\d+) ", ALL.read_text(), re.MULTILINE)
    assert len(limits) >= 8
    slowest_s = sum(int(limit) + 5 for limit in limits)
    assert slowest_s <= 600, "even where every part runs into its limit and has to be killed"
