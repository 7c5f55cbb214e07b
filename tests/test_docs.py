"""The pages that must not fall behind the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
MODULES = [
    path.relative_to(ROOT / "server").as_posix()
    for path in sorted((ROOT / "server").rglob("*.py"))
    if path.name not in ("__init__.py", "__main__.py")
]


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_its_sentence(module: str) -> None:
    assert f"| `{module}` |" in ARCHITECTURE


def test_no_sentence_is_about_a_module_that_is_gone() -> None:
    named = set(re.findall(r"^\| `([\w/]+\.py)` \|", ARCHITECTURE, re.MULTILINE))
    assert named == set(MODULES)


def test_the_settings_page_is_the_settings() -> None:
    command = [sys.executable, "scripts/settings_page.py"]
    page = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert (ROOT / "docs/settings.md").read_text(encoding="utf-8") == page, "run `make docs`"


def test_the_tables_of_fields_are_those_of_the_code() -> None:
    command = [sys.executable, "scripts/api_page.py"]
    page = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert (ROOT / "docs/api.md").read_text(encoding="utf-8") == page, "run `make docs`"


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("docs/**/*.md")))
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
