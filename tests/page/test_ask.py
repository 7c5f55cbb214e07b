"""Asking, stopping, asking again: what the page shows is what the API answers."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from playwright.sync_api import expect

from tests.e2e.daemon import Daemon
from tests.page.playground import Playground, png

SCENE = Path(__file__).parents[2] / "docs/images/scene.png"

LONG = {"temperature": "0", "max_tokens": "3000", "more": '{"ignore_eos": true}'}
SHORT = {"temperature": "0", "max_tokens": "24"}


def said_by_api(daemon: Daemon, body: dict[str, Any]) -> str:
    """The answer to what the page has sent, without streaming."""
    plain = {key: value for key, value in body.items() if not key.startswith("stream")}
    response = daemon.http.post("/v1/chat/completions", json=plain)
    assert response.status_code == 200, response.text
    text: str = response.json()["choices"][0]["message"]["content"]
    return text


def raw_answer(page: Playground) -> str:
    """The last answer as its characters, not as its markdown shows."""
    page.wait_until_settled()
    page.tab.evaluate(
        "() => { navigator.clipboard.writeText = async (text) => (self.copied = text) }"
    )
    page.click("Copy the answer")
    text: str = page.tab.evaluate("() => self.copied")
    return text


def test_a_dropped_picture_is_answered_as_the_api_answers(page: Playground, daemon: Daemon) -> None:
    page.set(temperature="0", max_tokens="160", more='{"ignore_eos": true}')
    page.drop(png("circle.png"))
    assert page.thumbnails(1) == ["circle.png"]
    page.watch_text()
    page.ask("Go on for ever.")
    answer = raw_answer(page)
    seen = page.texts_seen()
    assert len(seen) > 3, "the answer did not come in pieces"
    assert len(seen[0]) < len(seen[len(seen) // 2]) < len(seen[-1])
    (body,) = page.bodies
    assert body["stream"] is True
    assert [part["type"] for part in body["messages"][0]["content"]] == ["image_url", "text"]
    assert answer == said_by_api(daemon, body)
    assert page.tab.locator(".turn .pictures img").get_attribute("alt") == "circle.png"


def test_a_dropped_picture_is_seen(page: Playground) -> None:
    page.set(**SHORT)
    page.drop(("scene.png", "image/png", SCENE.read_bytes()))
    page.thumbnails(1)
    page.ask("What colour is the star?")
    assert raw_answer(page) == "black"
    page.ask("And where is it?")
    assert raw_answer(page) == "middle left"


def test_stopping_ends_the_request_in_the_engine(page: Playground, daemon: Daemon) -> None:
    page.set(**LONG)
    page.ask("Go on for ever.")
    page.tab.wait_for_function("() => document.querySelector('.prose')?.textContent.length > 20")
    assert daemon.gauge("internvl_requests_running") == 1
    page.tab.click("#send")
    deadline_s = time.monotonic() + 2
    while daemon.gauge("internvl_requests_running"):
        assert time.monotonic() < deadline_s, "the engine goes on"
        time.sleep(0.02)
    page.wait_until_settled()
    expect(page.tab.locator(".note")).to_have_text("You stopped this answer.")
    before = raw_answer(page)
    assert len(before) > 20
    page.set(max_tokens="8", more="")
    page.click("Go on with this answer")
    assert raw_answer(page).startswith(before)
    assert page.bodies[-1]["continue_final_message"] is True


def test_escape_stops_too(page: Playground, daemon: Daemon) -> None:
    page.set(**LONG)
    page.ask("Go on for ever.")
    page.tab.wait_for_function("() => document.querySelector('.prose')?.textContent.length > 20")
    page.tab.keyboard.press("Escape")
    page.wait_until_settled()
    daemon.wait_until_idle(timeout_s=2)


def test_a_second_turn_carries_the_first(page: Playground, daemon: Daemon) -> None:
    page.set(**SHORT)
    page.drop(png("circle.png"))
    page.thumbnails(1)
    page.ask("What is this?")
    first = raw_answer(page)
    page.ask("And now?")
    assert raw_answer(page) == said_by_api(daemon, page.bodies[-1])
    messages = page.bodies[-1]["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert messages[1]["content"] == first
    assert messages[0] == page.bodies[0]["messages"][0]


def test_answering_again_and_editing_replace_the_turn(page: Playground) -> None:
    page.set(**SHORT)
    first = page.ask_and_read("One?")
    page.ask_and_read("Two?")
    page.tab.locator(".turn").first.get_by_label("Answer again").click()
    assert page.answer() == first
    expect(page.tab.locator(".turn")).to_have_count(1)
    page.tab.focus("#question")
    page.tab.keyboard.press("ArrowUp")
    editor = page.tab.get_by_label("Edit the question", exact=True).and_(
        page.tab.locator("textarea")
    )
    editor.fill("Three?")
    editor.press("Enter")
    page.answer()
    expect(page.tab.locator(".asked")).to_have_text("Three?")
    assert page.bodies[-1]["messages"] == [{"role": "user", "content": "Three?"}]


def test_every_setting_reaches_the_request(page: Playground) -> None:
    page.set(
        system="Be short.", temperature="0.5", top_p="0.9", max_tokens="5", seed="7",
        stop="END\n###", more='{"top_k": 3}',
    )  # fmt: skip
    page.ask_and_read("Hi")
    body = page.bodies[-1]
    assert body["messages"][0] == {"role": "system", "content": "Be short."}
    sent = {name: body[name] for name in ("temperature", "top_p", "max_completion_tokens", "seed")}
    assert sent == {"temperature": 0.5, "top_p": 0.9, "max_completion_tokens": 5, "seed": 7}
    assert (body["stop"], body["top_k"]) == (["END", "###"], 3)


def test_a_schema_holds_the_answer(page: Playground) -> None:
    schema = '{"type": "object", "properties": {"count": {"type": "integer", "maximum": 9, '
    schema += '"minimum": 0}}, "required": ["count"], "additionalProperties": false}'
    page.set(schema_mode=True, schema="{", temperature="0")
    page.ask("How many?")
    expect(page.tab.locator("#schema-objection")).to_contain_text("no JSON")
    assert page.bodies == []
    page.set(schema=schema)
    page.tab.focus("#question")
    page.tab.keyboard.press("Enter")
    page.wait_until_settled()
    value = page.tab.evaluate(
        "() => JSON.parse(document.querySelector('figure.code code').textContent)"
    )
    assert list(value) == ["count"]
    assert 0 <= value["count"] <= 9
    assert page.bodies[-1]["response_format"]["json_schema"]["strict"] is True
    page.set(schema_mode=False, max_tokens="4")
    page.click("Answer again")
    page.wait_until_settled()
    expect(page.tab.locator("figure.code")).to_have_count(0)
