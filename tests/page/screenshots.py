"""The README's pictures of the playground: `python -m tests.page.screenshots FOLDER`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from tests.e2e.daemon import running
from tests.page.browser import launch
from tests.page.playground import Playground

DESKTOP: Mapping[str, Any] = {
    "viewport": {"width": 1280, "height": 800},
    "device_scale_factor": 1.5,
}
PHONE: Mapping[str, Any] = {
    "viewport": {"width": 390, "height": 780},
    "device_scale_factor": 2,
    "has_touch": True,
}
SECOND_QUESTION = "What shape is red?"


def take(browser: Browser, url: str, folder: Path) -> None:
    """Writes playground-light.png, playground-dark.png and playground-phone.png."""
    folder.mkdir(parents=True, exist_ok=True)

    def shoot(name: str, *, talk: bool, details: bool = False, **options: Any) -> None:
        context = browser.new_context(**options)
        page = Playground(context.new_page(), url)
        page.open()
        if talk:
            _talk(page)
        if details:
            page.show_panel("inspector")
            page.tab.locator("#copy-snippet").wait_for()
        page.tab.mouse.move(0, 0)
        page.tab.wait_for_timeout(400)
        page.tab.screenshot(path=folder / f"playground-{name}.png")
        context.close()

    shoot("light", talk=True, details=True, color_scheme="light", **DESKTOP)
    shoot("dark", talk=False, color_scheme="dark", **DESKTOP)
    shoot("phone", talk=True, color_scheme="light", **PHONE)


def _talk(page: Playground) -> None:
    page.set(temperature="0", max_tokens="40")
    page.tab.click("#close-panel")
    page.tab.locator("#samples button").first.click()
    page.thumbnails(1)
    page.tab.press("#question", "Enter")
    page.answer()
    page.ask_and_read(SECOND_QUESTION)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", type=Path, help="a checkpoint; default: what is served alone")
    arguments = parser.parse_args()
    with (
        running(model=arguments.model, name="internvl-demo") as daemon,
        sync_playwright() as playwright,
        launch(playwright) as browser,
    ):
        take(browser, daemon.url, arguments.folder)


if __name__ == "__main__":
    main()
