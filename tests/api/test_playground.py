from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from server.api.playground import FOLDER, POLICY
from tests.api.conftest import Rig
from tests.api.harness import RunningApi

SIZE_BYTES_MAX = 200_000
FILES = [path for path in sorted(FOLDER.rglob("*")) if path.is_file()]
SERVED = [path for path in FILES if path.suffix != ".LICENSE"]
OWN_SCRIPTS = sorted((FOLDER / "scripts").iterdir())
MARKED_SHA256 = "5371fea86fd0656b4fc7bea7c94c663109d82789b69433eeee78d42895aa44de"
"""Of lib/marked.esm.js in version 18.2.1 as npm has it."""


def name(path: Path) -> str:
    return path.relative_to(FOLDER).as_posix()


def test_the_page(rig: Rig) -> None:
    response = rig.api.client.get("/")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["content-security-policy"] == POLICY
    assert response.headers["x-content-type-options"] == "nosniff"
    assert rig.api.client.head("/").headers["content-length"] == str(len(response.content))


@pytest.mark.parametrize("path", SERVED, ids=name)
def test_every_part_is_served_under_the_policy(rig: Rig, path: Path) -> None:
    response = rig.api.client.get(f"/playground/{name(path)}")
    assert response.status_code == 200
    assert response.content == path.read_bytes()
    assert response.headers["content-security-policy"] == POLICY


def test_a_known_part_is_not_sent_again(rig: Rig) -> None:
    first = rig.api.client.get("/playground/scripts/main.js")
    again = rig.api.client.get(
        "/playground/scripts/main.js", headers={"if-none-match": first.headers["etag"]}
    )
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/playground",
        "/playground/",
        "/playground/none.js",
        "/playground/../settings.py",
        "/playground/%2e%2e/settings.py",
        "/playground/vendor/marked.LICENSE",
        "/playground/scripts",
    ],
)
def test_nothing_else_is_served(rig: Rig, path: str) -> None:
    assert rig.api.client.get(path).status_code == 404


def test_without_the_playground_there_is_nothing_at_the_root(tmp_path: Path) -> None:
    with RunningApi(tmp_path, playground=False) as api:
        for path in ("/", "/playground/scripts/main.js"):
            response = api.client.get(path)
            assert response.status_code == 404
            assert response.json()["error"]["code"] == "unknown_url"


def test_the_policy_allows_nothing_inline() -> None:
    assert "unsafe" not in POLICY
    assert "default-src 'none'" in POLICY
    assert "http" not in POLICY


def test_the_page_is_small() -> None:
    assert sum(path.stat().st_size for path in FILES) < SIZE_BYTES_MAX


def test_the_page_names_its_parts_relatively() -> None:
    """So that it works under a sub-path."""
    page = (FOLDER / "index.html").read_text(encoding="utf-8")
    addresses = re.findall(r'\b(?:src|href)="([^"#][^"]*)"', page)
    assert addresses
    assert all((FOLDER / address.removeprefix("playground/")).is_file() for address in addresses)


@pytest.mark.parametrize("path", OWN_SCRIPTS, ids=name)
def test_no_script_reads_text_as_markup_or_code(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function"
    assert not re.search(forbidden, source)
    assert len(source.splitlines()) < 200


def test_the_parser_is_the_published_one() -> None:
    marked = (FOLDER / "vendor/marked.esm.js").read_bytes()
    assert hashlib.sha256(marked).hexdigest() == MARKED_SHA256
    assert (FOLDER / "vendor/marked.LICENSE").is_file()
