"""The developer's side: counts are the server's, copied code gives the same answer."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.page.playground import NPM_FOLDER, Playground, png

FIXED = {"temperature": "0", "max_tokens": "16"}
TAKE_COPIES = "() => { navigator.clipboard.writeText = async (text) => (self.copied = text) }"


def copied(page: Playground, language: str) -> str:
    page.tab.evaluate(TAKE_COPIES)
    page.tab.get_by_role("button", name=language, exact=True).click()
    page.tab.click("#copy-snippet")
    text: str = page.tab.evaluate("() => self.copied")
    return text


def test_the_numbers_are_those_of_the_server(page: Playground) -> None:
    page.set(**FIXED)
    page.drop(png("circle.png"))
    page.thumbnails(1)
    page.ask_and_read("What colour is it?")
    page.show_panel("inspector")
    events = [json.loads(text) for text in page.tab.locator(".events code").all_inner_texts()]
    usage = events[-1]["usage"]
    names = page.tab.locator(".figures dt").all_inner_texts()
    figures = dict(zip(names, page.tab.locator(".figures dd").all_inner_texts(), strict=True))
    details = usage["prompt_tokens_details"]
    assert figures["Prompt"] == f"{usage['prompt_tokens']} tokens"
    assert figures["of which pictures"] == f"{details['image_tokens']} tokens"
    assert figures["of which cached"] == f"{details['cached_tokens']} tokens"
    assert figures["Answer"] == f"{usage['completion_tokens']} tokens"
    assert figures["First token"].endswith("s")
    expect(page.tab.locator("#meter-text")).to_contain_text(f"{usage['total_tokens']} / ")


@pytest.mark.parametrize("language", ["curl", "Python", "JavaScript"])
def test_copied_code_gives_the_same_answer(page: Playground, tmp_path: Path, language: str) -> None:
    page.set(**FIXED, stop="'\\\"\n<|im_end|>", more='{"top_k": 40, "metadata": {"a": "é'
             '$HOME `x` \\\\ \'"}}')  # fmt: skip
    page.drop(png("circle.png"))
    page.thumbnails(1)
    page.ask_and_read('What\'s in "it"?\n$HOME `date` \\n REQUEST')
    page.show_panel("inspector")
    answer = page.tab.evaluate(
        "() => [...document.querySelectorAll('.events code')].map((code) => "
        "JSON.parse(code.textContent).choices[0]?.delta.content ?? '').join('')"
    )
    code = copied(page, language)
    assert "…" not in code
    if language == "curl":
        file, command = tmp_path / "ask.sh", ["bash"]
    elif language == "Python":
        file, command = tmp_path / "ask.py", [sys.executable]
    else:
        (tmp_path / "node_modules").symlink_to(NPM_FOLDER / "node_modules")
        file, command = tmp_path / "ask.mjs", [shutil.which("node") or "node"]
    file.write_text(code, encoding="utf-8")
    done = subprocess.run([*command, file], check=True, capture_output=True, timeout=60)
    said = done.stdout.decode()
    if language == "curl":
        chunks = [json.loads(line[6:]) for line in said.splitlines() if line.startswith("data: {")]
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
        said = "".join(delta.get("content", "") for delta in deltas) + "\n"
    assert said == f"{answer}\n"


def test_probabilities_are_shown_on_demand(page: Playground) -> None:
    page.set(**FIXED)
    page.ask_and_read("Hi")
    page.show_panel("inspector")
    expect(page.tab.locator("#inspector")).to_contain_text("Switch on “Token probabilities”")
    assert "logprobs" not in page.bodies[-1]
    page.set(probabilities=True)
    page.click("Answer again")
    page.wait_until_settled()
    page.show_panel("inspector")
    tokens = page.tab.locator(".token")
    assert tokens.count() >= 8
    tokens.first.focus()
    page.tab.keyboard.press("ArrowRight")
    expect(tokens.nth(1)).to_be_focused()
    expect(tokens.nth(1)).to_have_attribute("aria-selected", "true")
    assert page.tab.locator(".alternatives dt").count() >= 5


def test_the_meter_warns_before_the_context_is_full(page: Playground) -> None:
    page.tab.fill("#question", "x" * 4000)
    expect(page.tab.locator("#meter")).to_be_visible()
    expect(page.tab.locator("#meter-warning")).to_be_empty()
    limit = int(page.tab.locator("#meter-text").inner_text().split(" / ")[1].replace(",", ""))
    page.tab.fill("#question", "x" * int(limit * 3.5 * 0.9))
    expect(page.tab.locator("#meter-warning")).to_have_text("The context is nearly full.")
    page.tab.fill("#question", "x" * int(limit * 3.5 * 1.1))
    expect(page.tab.locator("#meter-warning")).to_contain_text("This will not fit.")


def test_the_corner_tells_the_state_of_the_server(page: Playground) -> None:
    expect(page.tab.locator("#model")).to_have_text("internvl-demo")
    expect(page.tab.locator("#load")).to_contain_text("KV cache")
    expect(page.tab.locator("#version")).to_contain_text("internvl-serve")
