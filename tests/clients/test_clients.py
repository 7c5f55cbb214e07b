"""The clients of the field, unmodified and in several majors, against the live daemon.

Run by `make test-clients`: each client is installed into an environment of its own. A client that
cannot be installed is a failure.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests import golden
from tests.e2e.daemon import MODEL, Daemon, running

HERE = Path(__file__).parent
PICTURE = golden.IMAGES / "rgb_square.png"


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running() as daemon:
        yield daemon


def run(command: Sequence[str | Path], cwd: Path | None = None) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def drive(daemon: Daemon, command: Sequence[str | Path], cwd: Path | None = None) -> None:
    said = run([*command, f"{daemon.url}/v1", MODEL, PICTURE], cwd)
    assert said.rstrip().endswith(": ok")
    daemon.wait_until_idle()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("version", ["", "==3.*", "==2.*", "==1.*"], ids=lambda v: v or "newest")
def test_openai_for_python(daemon: Daemon, tmp_path: Path, version: str) -> None:
    run([sys.executable, "-m", "venv", tmp_path / "venv"])
    python = tmp_path / "venv/bin/python"
    run([python, "-m", "pip", "install", "--quiet", f"openai{version}"])
    drive(daemon, [python, HERE / "openai_python.py"])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("version", ["latest", "6"])
def test_openai_for_node(daemon: Daemon, tmp_path: Path, version: str) -> None:
    shutil.copy(HERE / "openai_node.mjs", tmp_path)
    (tmp_path / "package.json").write_text('{"private": true, "type": "module"}')
    run(["npm", "install", "--silent", "--no-audit", "--no-fund", f"openai@{version}"], tmp_path)
    drive(daemon, ["node", "openai_node.mjs"], tmp_path)
