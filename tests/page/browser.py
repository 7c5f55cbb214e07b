"""Debian's Chromium as the tests start it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Playwright

FONTS = Path(__file__).parent / "fonts.conf"
FLAGS = (
    "--no-sandbox",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)


@contextmanager
def launch(playwright: Playwright) -> Iterator[Browser]:
    """A headless browser with the fonts of `fonts.conf` in place of a desktop's."""
    path = shutil.which("chromium")
    assert path, "no chromium: `make test-page` installs it"
    environment: dict[str, str | float | bool] = {**os.environ, "FONTCONFIG_FILE": str(FONTS)}
    with playwright.chromium.launch(
        executable_path=path, args=list(FLAGS), env=environment
    ) as browser:
        yield browser
