"""The clients of the field, unmodified and in several majors, against the demo model, live.

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

from tests.e2e.daemon import Daemon, running

HERE = Path(__file__).parent
MODEL = "internvl-demo"
PICTURE = HERE.parents[1] / "docs/images/scene.png"


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running(model=None, name=MODEL) as daemon:
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


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("script", "package"),
    [
        ("openai_python.py", "openai"),
        ("openai_python.py", "openai==3.*"),
        ("openai_python.py", "openai==2.*"),
        ("openai_python.py", "openai==1.*"),
        ("langchain_openai_client.py", "langchain-openai==1.7.*"),
        ("pydantic_ai_client.py", "pydantic-ai-slim[openai]==2.68.*"),
    ],
)
def test_python_clients(daemon: Daemon, tmp_path: Path, script: str, package: str) -> None:
    run([sys.executable, "-m", "venv", tmp_path / "venv"])
    python = tmp_path / "venv/bin/python"
    run([python, "-m", "pip", "install", "--quiet", package])
    drive(daemon, [python, HERE / script])


AI_SDK = ("ai@7.0", "@ai-sdk/openai-compatible@3.0", "@ai-sdk/openai@4.0")


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("script", "packages"),
    [
        ("openai_node.mjs", ("openai@latest", "zod@4")),
        ("openai_node.mjs", ("openai@6", "zod@4")),
        ("ai_sdk.mjs", AI_SDK),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else value,
)
def test_node_clients(
    daemon: Daemon, tmp_path: Path, script: str, packages: tuple[str, ...]
) -> None:
    shutil.copy(HERE / script, tmp_path)
    (tmp_path / "package.json").write_text('{"private": true, "type": "module"}')
    run(["npm", "install", "--silent", "--no-audit", "--no-fund", *packages], tmp_path)
    drive(daemon, ["node", script], tmp_path)
