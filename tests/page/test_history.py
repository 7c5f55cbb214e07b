"""Conversations stay in the browser, leave it as a file, and come back."""

from __future__ import annotations

import json
from pathlib import Path

from playwright.sync_api import FilePayload, expect

from tests.page.playground import Playground, png


def titles(page: Playground) -> list[str]:
    return page.tab.locator("#conversations .entry").all_inner_texts()


def import_text(page: Playground, text: str) -> str:
    """What the page says to an archive."""
    file = FilePayload(name="a.json", mimeType="application/json", buffer=text.encode())
    page.tab.set_input_files("#import-file", file)
    expect(page.tab.locator("#archive-note")).not_to_be_empty()
    return page.tab.locator("#archive-note").inner_text()


def test_a_reload_finds_everything(page: Playground) -> None:
    page.set(max_tokens="12", temperature="0")
    page.drop(png("circle.png"))
    page.thumbnails(1)
    answer = page.ask_and_read("What is this?")
    page.tab.click("#new-chat")
    page.ask_and_read("Something else?")
    page.open()
    assert titles(page) == ["Something else?", "What is this?"]
    page.tab.get_by_role("button", name="What is this?", exact=True).click()
    expect(page.tab.locator(".asked")).to_have_text("What is this?")
    assert page.answer() == answer
    image = page.tab.locator(".pictures img")
    assert image.evaluate("async (image) => (await image.decode(), image.naturalWidth)") == 224
    page.ask_and_read("And now?")
    assert [m["role"] for m in page.bodies[-1]["messages"]] == ["user", "assistant", "user"]
    assert titles(page) == ["What is this?", "Something else?"]


def test_export_delete_import(page: Playground) -> None:
    page.set(max_tokens="6")
    page.drop(png("circle.png"))
    page.thumbnails(1)
    answer = page.ask_and_read("What is this?")
    with page.tab.expect_download() as download:
        page.tab.click("#export")
    archive = Path(download.value.path()).read_text(encoding="utf-8")
    page.tab.locator("#conversations li").hover()
    page.tab.get_by_label("Delete “What is this?”").click()
    expect(page.tab.locator("#conversations li")).to_have_count(0)
    expect(page.tab.locator(".turn")).to_have_count(0)
    assert import_text(page, archive) == "Imported: 1."
    page.tab.get_by_role("button", name="What is this?", exact=True).click()
    expect(page.tab.locator(".asked")).to_have_text("What is this?")
    assert page.answer() == answer


def test_what_is_deleted_while_it_streams_is_not_kept_again(page: Playground) -> None:
    page.set(temperature="0", max_tokens="3000", more='{"ignore_eos": true}')
    page.ask("Go on for ever.")
    page.tab.wait_for_function("() => document.querySelector('.prose')?.textContent.length > 20")
    page.tab.locator("#conversations li").hover()
    page.tab.get_by_label("Delete “Go on for ever.”").click()
    expect(page.tab.locator(".turn")).to_have_count(0)
    page.wait_until_settled()
    expect(page.tab.locator("#conversations li")).to_have_count(0)
    page.set(max_tokens="4", more="")
    page.ask_and_read("Something else?")
    page.open()
    assert titles(page) == ["Something else?"]


def test_what_is_no_archive_is_said_so(page: Playground) -> None:
    assert import_text(page, "{") == "This file is no archive of conversations."
    picture = {"name": "x", "url": "https://example.com/x.png"}
    turn = {"question": {"text": "", "pictures": [picture]}, "answer": None}
    conversation = {"id": "a", "title": "a", "updatedAt": 0, "turns": [turn]}
    kind = {"format": "internvl-serve conversations", "version": 1}
    assert import_text(page, json.dumps({**kind, "conversations": [conversation]})) == (
        "A picture in this file is not usable."
    )
    expect(page.tab.locator("#conversations li")).to_have_count(0)


def test_the_key_stays_in_its_tab(page: Playground) -> None:
    page.show_panel("settings")
    page.tab.fill("#api-key", "sk-secret")
    page.tab.locator("#settings [name=temperature]").fill("0.7")
    page.open()
    assert page.tab.input_value("#api-key") == "sk-secret"
    assert "sk-secret" not in page.tab.evaluate("() => JSON.stringify(localStorage)")
    other = page.tab.context.new_page()
    other.goto(page.url)
    assert other.input_value("#api-key") == ""
    assert other.input_value("[name=temperature]") == "0.7"
    other.close()
