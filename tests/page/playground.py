"""The page as a user handles it."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from PIL import Image, ImageDraw
from playwright.sync_api import ConsoleMessage, Dialog, Page, Request, Response
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

FILES_TO_PAGE = """files => {
    const transfer = new DataTransfer();
    for (const {name, type, data} of files) {
        const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
        transfer.items.add(new File([bytes], name, {type}));
    }
    return transfer;
}"""
LIVE_TEXTS = """() => {
    globalThis.seen = [];
    const look = () => seen.push(document.querySelector(".turn:last-child .prose")?.textContent);
    new MutationObserver(look).observe(document.getElementById("turns"),
        {subtree: true, childList: true, characterData: true});
}"""


class Playground:
    """A tab with the page at `url`; keeps whatever the browser complains about."""

    def __init__(self, tab: Page, url: str) -> None:
        self.tab = tab
        self.url = url
        self.complaints: list[str] = []
        self.refused: list[int] = []
        """Statuses of requests that the daemon refused; the browser's console names them too."""
        self.bodies: list[dict[str, Any]] = []
        """Of the chat requests so far."""
        self._unanswered: list[str] = []
        tab.on("console", self._hear)
        tab.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        tab.on("dialog", self._see_dialog)
        tab.on("request", self._see_request)
        tab.on("response", self._see_response)
        tab.on("requestfailed", self._see_failure)

    def open(self, path: str = "/") -> None:
        self._unanswered.clear()
        self.tab.goto(f"{self.url}{path}")
        try:
            self.tab.wait_for_selector("#state.ready", state="attached")
        except PlaywrightTimeoutError as error:
            error.add_note(f"state: {self.tab.locator('#state-text').inner_text()!r}")
            error.add_note(f"hidden: {self.tab.evaluate('document.hidden')}")
            error.add_note(f"complaints: {self.complaints}; unanswered: {self._unanswered}")
            raise

    def ask(self, text: str) -> None:
        self.tab.fill("#question", text)
        self.tab.keyboard.press("Enter")

    def answer(self) -> str:
        """What the last answer shows when it has ended."""
        self.wait_until_settled()
        return self.tab.locator(".turn:last-child .prose").inner_text()

    def ask_and_read(self, text: str) -> str:
        self.ask(text)
        return self.answer()

    def wait_until_settled(self) -> None:
        self.tab.wait_for_selector("#composer:not(.busy)")
        self.tab.wait_for_function("() => !document.querySelector('.turn.live')")

    def click(self, label: str) -> None:
        """A button of the last turn."""
        self.tab.locator(".turn:last-child").get_by_label(label).click()

    def drop(self, *files: tuple[str, str, bytes]) -> None:
        """Files as (name, type, content), onto the middle of the page."""
        self._give("drop", "dataTransfer", "#transcript", files)

    def paste(self, *files: tuple[str, str, bytes]) -> None:
        self._give("paste", "clipboardData", "#question", files)

    def _give(
        self, event: str, field: str, target: str, files: Sequence[tuple[str, str, bytes]]
    ) -> None:
        packed = [
            {"name": name, "type": kind, "data": base64.b64encode(data).decode()}
            for name, kind, data in files
        ]
        transfer = self.tab.evaluate_handle(FILES_TO_PAGE, packed)
        kind = "DragEvent" if event == "drop" else "ClipboardEvent"
        self.tab.evaluate(
            f"([selector, transfer]) => document.querySelector(selector).dispatchEvent("
            f"new {kind}('{event}', {{{field}: transfer, bubbles: true, cancelable: true}}))",
            [target, transfer],
        )

    def thumbnails(self, count: int) -> list[str]:
        """Names of the pictures of the next question, once there are so many."""
        self.tab.wait_for_function(
            "count => document.getElementById('tray').childElementCount === count", arg=count
        )
        labels = [item.get_attribute("aria-label") for item in self.tab.locator("#tray li").all()]
        return [(label or "").partition(": ")[2].partition(". Arrow")[0] for label in labels]

    def set(self, **values: str | bool) -> None:
        """Settings by the names of their fields."""
        self.show_panel("settings")
        for name, value in values.items():
            field = self.tab.locator(f"#settings [name={name}]")
            if isinstance(value, bool):
                field.set_checked(value)
            else:
                field.fill(value)

    def show_panel(self, name: str) -> None:
        tab = self.tab.locator(f"#{name}-tab")
        if not tab.is_visible():
            self.tab.click(f"#open-{name}")
        tab.click()

    def watch_text(self) -> None:
        """From now on `texts_seen` tells what the growing answer showed."""
        self.tab.evaluate(LIVE_TEXTS)

    def texts_seen(self) -> list[str]:
        """Different texts of the last answer, in their order."""
        seen: list[str] = self.tab.evaluate("() => [...new Set(seen.filter(Boolean))]")
        return seen

    def _hear(self, message: ConsoleMessage) -> None:
        refusal = message.text.startswith("Failed to load resource: the server responded with")
        if message.type in ("error", "warning") and not (refusal and self.refused):
            self.complaints.append(f"console: {message.text}")

    def _see_dialog(self, dialog: Dialog) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _see_request(self, request: Request) -> None:
        address = urlsplit(request.url)
        self._unanswered.append(request.url)
        if address.scheme not in ("data", "blob") and not request.url.startswith(self.url):
            self.complaints.append(f"request to {request.url}")
        if address.path.endswith("/v1/chat/completions"):
            body: Any = request.post_data_json
            self.bodies.append(body)

    def _see_response(self, response: Response) -> None:
        self._forget(response.request)
        if response.status >= 400 and response.url.endswith("/v1/chat/completions"):
            self.refused.append(response.status)

    def _see_failure(self, request: Request) -> None:
        self._forget(request)
        self._unanswered.append(f"{request.url}: {request.failure}")

    def _forget(self, request: Request) -> None:
        if request.url in self._unanswered:
            self._unanswered.remove(request.url)


def picture(colour: str = "red", form: str = "PNG", size: tuple[int, int] = (224, 224)) -> bytes:
    """A circle of a colour on white, as a file."""
    image = Image.new("RGB", size, "white")
    width, height = size
    box = (width // 4, height // 4, 3 * width // 4, 3 * height // 4)
    ImageDraw.Draw(image).ellipse(box, fill=colour)
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


def png(name: str, colour: str = "red") -> tuple[str, str, bytes]:
    return name, "image/png", picture(colour)


NPM_FOLDER = Path(__file__).parents[2] / ".cache/page"
"""Where `make test-page` puts what comes from npm."""
