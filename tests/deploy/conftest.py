from __future__ import annotations

import json
from typing import Any

import pytest

from tests.deploy.containers import IMAGE, build_image, podman


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write renders of the chart")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture(scope="session")
def image() -> dict[str, Any]:
    """What podman says of the CPU image, which is built first."""
    build_image()
    found: dict[str, Any] = json.loads(podman("image", "inspect", IMAGE))[0]
    return found
