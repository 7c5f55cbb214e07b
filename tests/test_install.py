"""`scripts/install` with a Python that will not do: it says the cure and keeps nothing broken."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

INSTALL = Path(__file__).parents[1] / "scripts/install"
WITHOUT_PIP = f'exec {sys.executable} -m venv --without-pip "$3"'


def install(venv: Path, python: str) -> str:
    """What it says when it fails.

    Args:
        python: a shell script that stands for the Python that is named.
    """
    stub = venv.parent / "python"
    stub.write_text(f"#!/bin/sh\n{python}\n")
    stub.chmod(0o755)
    done = subprocess.run(
        [INSTALL, venv],
        env=os.environ | {"PYTHON": str(stub)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stderr


def test_an_old_python_is_named(tmp_path: Path) -> None:
    said = install(tmp_path / "venv", f'[ "$1" = -m ] || exit 1\n{WITHOUT_PIP}')
    assert f"{tmp_path}/python is not Python 3.11 or newer" in said
    assert "PYTHON=" in said
    assert not (tmp_path / "venv").exists()


def test_a_python_without_pip_leaves_no_environment(tmp_path: Path) -> None:
    said = install(tmp_path / "venv", f'[ "$1" = -m ] || exec {sys.executable} "$@"\n{WITHOUT_PIP}')
    assert "python3-venv" in said
    assert "PYTHON=" in said
    assert not (tmp_path / "venv").exists()


def test_an_environment_that_is_not_whole_is_not_used(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    said = install(venv, f'exec {sys.executable} "$@"')
    assert f"{venv} holds no Python 3.11 or newer with pip: remove it" in said
    assert (venv / "pyvenv.cfg").exists(), "what is there belongs to somebody"
