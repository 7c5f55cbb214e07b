"""Nothing that a model, a file or an archive says runs, loads or leads anywhere but to the web."""

from __future__ import annotations

import io
import json

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import expect

from tests.page.playground import Playground, picture
from tests.page.scripted import answer_with, stream
from tests.page.test_history import import_text

ATTACKS = (
    "<script>globalThis.ran = 1</script>",
    "<img src=x onerror='globalThis.ran = 1'>",
    "<img src=https://example.com/leak.png>",
    "<svg onload=globalThis.ran=1><animate onbegin=globalThis.ran=1 attributeName=x dur=1s>",
    "<iframe srcdoc='<script>parent.ran = 1</script>'></iframe>",
    "<iframe src='javascript:parent.ran=1'></iframe>",
    "<body onload=globalThis.ran=1>",
    "<details open ontoggle=globalThis.ran=1>",
    "<video><source onerror=globalThis.ran=1></video>",
    "<math><mtext><table><mglyph><style><img src=x onerror=globalThis.ran=1>",
    "<noscript><p title='</noscript><img src=x onerror=globalThis.ran=1>'>",
    "<style>body { background: url(https://example.com/leak) }</style>",
    "<link rel=stylesheet href=https://example.com/leak.css>",
    "<meta http-equiv=refresh content='0;url=https://example.com'>",
    "<base href=https://example.com/>",
    "<form action=https://example.com><input autofocus onfocus=globalThis.ran=1></form>",
    "<a href='javascript:globalThis.ran=1'>click</a>",
    "[click](javascript:globalThis.ran=1)",
    "[click](JaVaScRiPt:globalThis.ran=1)",
    "[click](java\tscript:globalThis.ran=1)",
    "[click](&#106;avascript:globalThis.ran=1)",
    "[click](javascript&colon;globalThis.ran=1)",
    "[click](data:text/html,<script>globalThis.ran=1</script>)",
    "[click](vbscript:globalThis.ran=1)",
    "[click](<javascript:globalThis.ran=1>)",
    "<javascript:globalThis.ran=1>",
    "[click][x]\n\n[x]: javascript:globalThis.ran=1",
    "![picture](https://example.com/leak.png)",
    "![picture](javascript:globalThis.ran=1)",
    "![x](x \"onerror=globalThis.ran=1\")",
    "[x](https://example.com \"onmouseover=globalThis.ran=1\")",
    "[x](https://example.com\" onmouseover=\"globalThis.ran=1)",
    "`<script>globalThis.ran = 1</script>`",
    "```html\n<script>globalThis.ran = 1</script>\n```",
    "```\"><img src=x onerror=globalThis.ran=1>\ncode\n```",
    "| <img src=x onerror=globalThis.ran=1> | b |\n| --- | --- |\n| <script>ran=1</script> | c |",
    "# <img src=x onerror=globalThis.ran=1>",
    "1. <svg/onload=globalThis.ran=1>\n2. [a](javascript:globalThis.ran=1)",
    "> <img src=x onerror=globalThis.ran=1>",
    "- [x] <img src=x onerror=globalThis.ran=1>",
    "&lt;img src=x onerror=globalThis.ran=1&gt;",
    "\\<img src=x onerror=globalThis.ran=1>",
    "<!--><img src=x onerror=globalThis.ran=1>-->",
    "{{constructor.constructor('globalThis.ran=1')()}}",
    "__proto__ constructor toString",
    "\u202e<img src=x onerror=globalThis.ran=1>\u0000",
)  # fmt: skip

STRANGE = """() => {
    const plain = new Set((
        "ARTICLE SECTION DIV P SPAN BUTTON SVG PATH FOOTER STRONG EM DEL CODE PRE FIGURE " +
        "FIGCAPTION UL OL LI TABLE THEAD TBODY TR TH TD BLOCKQUOTE HR BR A H3 H4 H5 H6 IMG"
    ).split(" "));
    const strange = [];
    for (const node of document.querySelectorAll("#turns *, #conversations *, #tray *")) {
        if (!plain.has(node.tagName.toUpperCase())) strange.push(node.tagName);
        for (const {name, value} of node.attributes) {
            if (name.startsWith("on") || name === "style") strange.push(name);
            if (name === "href" && !/^(https?|mailto):/.test(value)) strange.push(value);
            if (name === "src" && !value.startsWith("data:image/")) strange.push(value);
        }
    }
    return strange.concat(globalThis.ran ? ["ran"] : []);
}"""


RENDER_BEGINNINGS = """async (attacks) => {
    const scripts = new URL("playground/scripts/", document.baseURI);
    const { MarkdownView } = await import(new URL("markdown.js", scripts));
    for (const attack of attacks) {
        const node = document.getElementById("turns").appendChild(document.createElement("div"));
        const view = new MarkdownView(node);
        for (let end = 0; end <= attack.length; end++) view.update(attack.slice(0, end));
        const whole = document.createElement("div");
        new MarkdownView(whole).update(attack);
        if (whole.textContent !== node.textContent) throw new Error(attack);
    }
}"""


def assert_harmless(page: Playground) -> None:
    page.tab.evaluate("() => new Promise(requestAnimationFrame)")
    assert page.tab.evaluate(STRANGE) == []
    assert page.complaints == []


def test_markdown_at_every_length(page: Playground) -> None:
    """As a stream shows it: every beginning of every attack."""
    page.tab.evaluate(RENDER_BEGINNINGS, list(ATTACKS))
    assert_harmless(page)


def test_answers(page: Playground) -> None:
    """One answer with all of it: streamed, read, and found again in the history."""
    answer_with(page, stream(*"\n\n".join(ATTACKS)))
    page.ask_and_read("\n".join(ATTACKS))
    assert_harmless(page)
    for link in page.tab.locator("#turns a").all():
        assert link.get_attribute("rel") == "noopener noreferrer nofollow"
    page.open()
    page.tab.locator("#conversations .entry").click()
    expect(page.tab.locator(".turn")).to_have_count(1)
    assert_harmless(page)


def test_probabilities_and_events(page: Playground) -> None:
    page.show_panel("inspector")
    answer_with(page, stream(*ATTACKS, logprobs=True))
    page.ask_and_read("Hi")
    expect(page.tab.locator(".token")).to_have_count(len(ATTACKS))
    for token in page.tab.locator(".token").all()[:8]:
        token.hover()
    assert page.tab.locator("#inspector").locator("img, script, iframe, a").count() == 0
    assert_harmless(page)


def test_names_and_metadata_of_pictures(page: Playground) -> None:
    page.set(max_tokens="2")
    for attack in ATTACKS[:8]:
        notes = PngInfo()
        notes.add_text("Comment", attack)
        notes.add_text("XML:com.adobe.xmp", attack)
        file = io.BytesIO()
        Image.open(io.BytesIO(picture())).save(file, "PNG", pnginfo=notes)
        page.drop((f"{attack}.png", "image/png", file.getvalue()))
        page.drop((f"{attack}.txt", "text/plain", attack.encode()))
    page.thumbnails(8)
    page.ask_and_read("")
    assert_harmless(page)
    page.open()
    page.tab.locator("#conversations .entry").click()
    expect(page.tab.locator(".pictures img")).to_have_count(8)
    assert_harmless(page)


def test_archives(page: Playground) -> None:
    conversations = []
    for number, attack in enumerate(ATTACKS):
        answer = {"text": attack, "finish": attack, "failure": {"title": attack, "text": attack}}
        turn = {"question": {"text": attack, "pictures": []}, "answer": answer}
        conversations.append(
            {"id": f"a{number}", "title": attack, "updatedAt": number, "turns": [turn]}
        )
    archive = {"format": "internvl-serve conversations", "version": 1}
    said = import_text(page, json.dumps({**archive, "conversations": conversations}))
    assert said == f"Imported: {len(ATTACKS)}."
    entries = page.tab.locator("#conversations .entry")
    expect(entries).to_have_count(len(ATTACKS))
    for number in range(0, len(ATTACKS), 9):
        entries.nth(number).click()
        expect(page.tab.locator(".failure")).to_be_visible()
        assert_harmless(page)


@pytest.mark.parametrize(
    "url", ["javascript:ran=1", "https://example.com/a.png", "data:image/svg+xml;base64,AAAA"]
)
def test_a_picture_of_an_archive_must_be_one(page: Playground, url: str) -> None:
    turn = {"question": {"text": "", "pictures": [{"name": "x", "url": url}]}}
    conversation = {"id": "a", "title": "a", "updatedAt": 0, "turns": [turn]}
    archive = {"format": "internvl-serve conversations", "version": 1}
    said = import_text(page, json.dumps({**archive, "conversations": [conversation]}))
    assert said == "A picture in this file is not usable."


@pytest.mark.parametrize(
    "statement",
    [
        "document.body.innerHTML = '<b></b>'",
        "document.createElement('script').src = 'x.js'",
        "document.body.setAttribute('onclick', 'globalThis.ran = 1')",
        "document.createElement('iframe').srcdoc = '<b></b>'",
    ],
)
def test_the_browser_itself_refuses_markup_and_code(page: Playground, statement: str) -> None:
    """The second wall, should the first one ever be forgotten somewhere."""
    attempt = f"() => {{ try {{ {statement} }} catch {{ return true }} return false }}"
    assert page.tab.evaluate(attempt)
    page.complaints.clear()  # the browser reports what it has refused
