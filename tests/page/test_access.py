"""For everyone: assistive technology, keyboard, phones; and under a sub-path of a proxy."""

from __future__ import annotations

import http.client
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, expect

from tests.e2e.daemon import Daemon
from tests.page.conftest import MODEL
from tests.page.playground import NPM_FOLDER, Playground, png
from tests.page.scripted import answer_with, refuse_with, stream

AXE = NPM_FOLDER / "node_modules/axe-core/axe.min.js"
RICH = """# A

Text with `code`, **weight** and [a link](https://example.com).

| a | b |
| --- | --- |
| 1 | 2 |

```py
print(1)
```

> quoted

- [x] done
"""
WIDTHS = {"desktop": 1280, "phone": 390}


def violations(page: Playground) -> list[tuple[str, list[str]]]:
    """What axe-core calls serious or critical on the page as it is now."""
    found: list[dict[str, Any]] = page.tab.evaluate("() => axe.run().then((all) => all.violations)")
    return [
        (entry["id"], [node["html"] for node in entry["nodes"]])
        for entry in found
        if entry["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("form", WIDTHS)
def test_axe_finds_nothing_serious(
    browser: Browser, daemon: Daemon, form: str, scheme: Any
) -> None:
    context = browser.new_context(
        viewport={"width": WIDTHS[form], "height": 844},
        color_scheme=scheme,
        reduced_motion="reduce",
    )
    page = Playground(context.new_page(), daemon.url)
    page.open()
    page.tab.evaluate(AXE.read_text(encoding="utf-8"))
    assert violations(page) == []
    page.drop(png("a.png"), png("b.png"))
    page.thumbnails(2)
    answer_with(page, stream(RICH, logprobs=True))
    page.ask_and_read("What is this?")
    page.tab.unroute_all()
    refuse_with(page, 429, "rate_limit_exceeded", wait_s=30)
    page.ask("Again?")
    page.wait_until_settled()
    assert violations(page) == []
    page.tab.locator(".turn").first.get_by_label("Details").click()
    assert violations(page) == []
    page.set(schema_mode=True, schema="{", more="[")
    assert violations(page) == []
    assert page.complaints == []
    context.close()


def test_everything_by_keyboard(page: Playground) -> None:
    page.tab.keyboard.press("Tab")
    expect(page.tab.locator(".skip")).to_be_focused()
    page.tab.keyboard.press("Enter")
    expect(page.tab.locator("#question")).to_be_focused()
    page.set(max_tokens="4")
    page.tab.keyboard.press("Escape")
    expect(page.tab.locator("#panel")).not_to_be_visible()
    page.tab.focus("#theme")
    page.tab.keyboard.press("/")
    expect(page.tab.locator("#question")).to_be_focused()
    page.tab.keyboard.type("One")
    page.tab.keyboard.press("Shift+Enter")
    page.tab.keyboard.type("Two")
    page.tab.keyboard.press("Enter")
    answer = page.answer()
    assert page.bodies[-1]["messages"][0]["content"] == "One\nTwo"
    page.tab.wait_for_function("() => document.getElementById('announcement').textContent")
    assert answer.strip() in page.tab.locator("#announcement").inner_text()
    page.tab.keyboard.press("Alt+n")
    expect(page.tab.locator(".turn")).to_have_count(0)


def test_nothing_is_wider_than_a_phone(browser: Browser, daemon: Daemon) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True)
    page = Playground(context.new_page(), daemon.url)
    page.open()
    answer_with(page, stream(RICH, "word" * 200))
    page.drop(*(png(f"{number}.png") for number in range(6)))
    page.thumbnails(6)
    page.ask_and_read("What is this?" * 20)
    assert page.tab.evaluate("() => document.documentElement.scrollWidth") == 360
    page.tab.click("#toggle-sidebar")
    expect(page.tab.locator("#conversations .entry")).to_be_visible()
    page.tab.mouse.click(350, 400)
    expect(page.tab.locator("#sidebar")).not_to_be_visible()
    page.show_panel("settings")
    assert page.tab.locator("#panel").bounding_box()["width"] <= 360  # type: ignore[index]
    context.close()


def test_dark_and_light_are_remembered(page: Playground) -> None:
    colour = "() => getComputedStyle(document.body).backgroundColor"
    light = page.tab.evaluate(colour)
    page.tab.click("#theme")
    dark = page.tab.evaluate(colour)
    assert dark != light
    page.open()
    assert page.tab.evaluate(colour) == dark


def test_under_a_sub_path(context: BrowserContext, daemon: Daemon) -> None:
    with proxy(daemon.url, "/some/where") as url:
        page = Playground(context.new_page(), url)
        page.open("/some/where/")
        page.set(max_tokens="4")
        page.ask_and_read("Hi")
        assert page.refused == []
        page.show_panel("inspector")
        expect(page.tab.locator(".snippet")).to_contain_text(
            f"{url}/some/where/v1/chat/completions"
        )
        assert page.complaints == []


def test_with_an_operations_port(page: Playground) -> None:
    """/version and /metrics are then not on the port of the page."""
    page.refused.append(404)  # the console will name them
    for path in ("version", "metrics"):
        page.tab.route(f"**/{path}", lambda route: route.fulfill(status=404))
    page.open()
    expect(page.tab.locator("#state-text")).to_have_text("Ready")
    expect(page.tab.locator("#model")).to_have_text(MODEL)
    expect(page.tab.locator("#version")).to_be_empty()
    expect(page.tab.locator("#load")).to_be_empty()
    page.set(max_tokens="4")
    page.ask_and_read("Hi")
    assert page.bodies[-1]["model"] == MODEL
    assert page.refused == [404]


@contextmanager
def proxy(target: str, prefix: str) -> Iterator[str]:
    """A server that hands requests below `prefix` on without it, and refuses all others."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def _hand_on(self) -> None:
            if not self.path.startswith(prefix):
                return self.send_error(404)
            upstream = http.client.HTTPConnection(urlsplit(target).netloc)
            length = int(self.headers.get("content-length", 0))
            path = self.path.removeprefix(prefix)
            upstream.request(self.command, path, self.rfile.read(length), dict(self.headers))
            answer = upstream.getresponse()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "date"):
                    self.send_header(name, value)
            self.end_headers()
            while piece := answer.read1():
                self.wfile.write(piece)
            upstream.close()

        do_GET = do_POST = _hand_on

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()
