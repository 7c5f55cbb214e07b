"""One daemon with the demo model and one browser for all tests of the page; a fresh tab for each,
storage included.

`make test-page` installs the browser (Debian's) and what comes from npm before it runs these.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, sync_playwright

from tests.e2e.daemon import Daemon, running
from tests.page.browser import launch
from tests.page.playground import Playground

MODEL = "internvl-demo"


@pytest.fixture(scope="session")
def daemon() -> Iterator[Daemon]:
    flags = ("--dtype", "float32", "--max-image-bytes", str(2**20))
    with running(*flags, model=None, name=MODEL) as daemon:
        yield daemon


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright, launch(playwright) as browser:
        yield browser


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1280, "height": 820})
    context.set_default_timeout(60_000)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, daemon: Daemon) -> Iterator[Playground]:
    """The open page. At the end the console must hold no error, and nothing but the daemon must
    have been asked for anything."""
    playground = Playground(context.new_page(), daemon.url)
    playground.open()
    yield playground
    playground.wait_until_settled()
    daemon.wait_until_idle()
    assert playground.complaints == []
