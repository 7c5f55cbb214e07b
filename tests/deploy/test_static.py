"""Checkers of the field over the files of deploy/."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.deploy.chart import CHART, ROOT

DOCKER = ROOT / "deploy/docker"
LOCKS = sorted(DOCKER.glob("*.lock"))


def tool(name: str) -> str:
    """A command of this environment, or of the system."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    assert found, f"{name}: run scripts/install_deploy_tools"
    return found


def check(*command: str | Path) -> None:
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dockerfile_passes_hadolint() -> None:
    check(tool("hadolint"), "--config", DOCKER / ".hadolint.yaml", DOCKER / "Dockerfile")


def test_shell_scripts_pass_shellcheck() -> None:
    names = ("install", "install_deploy_tools", "lock_image")
    scripts = [ROOT / "scripts" / name for name in names]
    check(tool("shellcheck"), *scripts, DOCKER / "sbom.sh")


def test_yaml_passes_yamllint() -> None:
    files = [*DOCKER.glob("*.yaml"), *CHART.glob("*.yaml"), *CHART.glob("ci/*.yaml")]
    rules = (
        "{extends: default, rules: {line-length: {max: 140}, braces: disable, brackets: disable, "
    )
    rules += "document-start: disable, comments: {min-spaces-from-content: 1}}}"
    check(tool("yamllint"), "--strict", "-d", rules, *files)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_everything_locked_has_a_hash_and_one_version(lock: Path) -> None:
    requirements = re.findall(r"^\S.*(?:\n\s.*)*", lock.read_text(encoding="utf-8"), re.MULTILINE)
    assert requirements
    for requirement in requirements:
        assert re.match(r"[\w.\-\[\]]+==\S+", requirement), requirement
        assert "--hash=sha256:" in requirement, requirement


def test_both_images_have_the_same_versions() -> None:
    """But for torch and what CUDA needs."""

    def versions(name: str) -> set[str]:
        text = (DOCKER / f"requirements-{name}.lock").read_text(encoding="utf-8")
        return set(re.findall(r"^([\w.\-]+==[^\s\\]+)", text, re.MULTILINE))

    only_cpu = versions("cpu") - versions("cuda")
    assert {one.partition("==")[0] for one in only_cpu} == {"torch"}
    cuda = {one.partition("==")[0] for one in versions("cuda") - versions("cpu")}
    assert all(name.startswith(("torch", "triton", "nvidia-", "cuda-")) for name in cuda), cuda


def test_locks_are_of_what_the_project_asks_for() -> None:
    """A dependency that was added and not locked would be missing in the image."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = project["dependencies"] + extras.get("video", []) + extras.get("otel", [])
    for lock in ("cpu", "cuda"):
        text = (DOCKER / f"requirements-{lock}.lock").read_text(encoding="utf-8")
        locked = set(re.findall(r"^([\w.\-]+)==", text, re.MULTILINE))
        for requirement in wanted:
            match = re.match(r"[\w.\-]+", requirement)
            assert match and match[0].lower() in locked, f"{requirement}: run scripts/lock_image"


def test_ci_runs_what_contributing_says() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    listed = " ".join(re.findall(r"^\| `make ([\w -]+)`", text, re.MULTILINE)).split()
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    run = " ".join(re.findall(r"\bmake ([\w -]+)$", script, re.MULTILINE)).split()
    said = re.search(r"\(`\.ci/run`\)\s+runs all of these(?: but `make (\w+)`)?", text)
    assert said and len(listed) > 10
    assert set(listed) - set(run) == ({said[1]} if said[1] else set())


@pytest.mark.parametrize("page", [DOCKER / "README.md", CHART / "README.md"])
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
