from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageStat
from playwright.sync_api import Browser

from tests.e2e.daemon import Daemon
from tests.page.screenshots import take


@pytest.fixture(scope="module")
def shots(browser: Browser, daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shots")
    take(browser, daemon.url, folder)
    return folder


def brightness(folder: Path, name: str) -> float:
    """Mean, 0 to 255."""
    with Image.open(folder / f"playground-{name}.png") as image:
        return ImageStat.Stat(image.convert("L")).mean[0]


def test_the_pictures_of_the_readme_can_be_made(shots: Path) -> None:
    assert brightness(shots, "light") > 180
    assert brightness(shots, "dark") < 90
    assert brightness(shots, "phone") > 180
    with Image.open(shots / "playground-phone.png") as phone:
        assert phone.size == (780, 1560)
