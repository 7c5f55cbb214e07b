"""What goes wrong is said in plain words, with a way on that does not ask twice."""

from __future__ import annotations

import json

from playwright.sync_api import Route, expect

from tests.page.playground import Playground
from tests.page.scripted import answer_with, handle, let_through, refuse_with, stream


def fails(page: Playground, question: str = "Hi") -> None:
    page.ask(question)
    page.wait_until_settled()
    expect(page.tab.locator(".failure")).to_be_visible()


def test_an_overloaded_server_and_the_wait(page: Playground) -> None:
    refuse_with(page, 429, "rate_limit_exceeded", wait_s=2)
    fails(page)
    failure = page.tab.locator(".failure")
    expect(failure).to_contain_text("The server is busy")
    expect(failure).to_contain_text("In the server's words.")
    again = failure.get_by_role("button")
    expect(again).to_have_text("Try again in 2 s")
    expect(again).to_be_disabled()
    let_through(page)
    page.set(max_tokens="4")
    expect(again).to_have_text("Try again")
    again.click()
    page.wait_until_settled()
    expect(failure).not_to_be_visible()
    expect(page.tab.locator(".turn")).to_have_count(1)
    assert page.bodies[-1]["messages"] == [{"role": "user", "content": "Hi"}]


def test_a_lost_connection_goes_on_where_it_broke(page: Playground) -> None:
    page.set(max_tokens="4")
    answer_with(page, stream("So far", " so good", end=False))
    fails(page)
    expect(page.tab.locator(".failure")).to_contain_text("The connection was lost")
    expect(page.tab.locator(".prose")).to_have_text("So far so good")
    let_through(page)
    page.tab.get_by_role("button", name="Go on from here").click()
    assert page.answer().startswith("So far so good")
    assert [message["role"] for message in page.bodies[-1]["messages"]] == ["user", "assistant"]
    assert page.bodies[-1]["continue_final_message"] is True
    expect(page.tab.locator(".turn")).to_have_count(1)


def test_no_network_at_all(page: Playground) -> None:
    def cut(route: Route) -> None:
        route.abort("internetdisconnected")

    handle(page, cut)
    fails(page)
    expect(page.tab.locator(".failure")).to_contain_text("Your question is kept")
    expect(page.tab.locator(".asked")).to_have_text("Hi")
    assert page.complaints.pop().startswith("console: Failed to load resource: net::")


def test_a_failure_in_mid_stream(page: Playground) -> None:
    error = {"message": "It died.", "type": "server_error", "code": "engine_restarted"}
    broken = f"data: {json.dumps({'error': error})}\n\n"
    answer_with(page, stream("Half", end=False) + broken)
    fails(page)
    expect(page.tab.locator(".failure strong")).to_have_text("The model was restarted")
    expect(page.tab.locator(".prose")).to_have_text("Half")


def test_other_refusals_in_plain_words(page: Playground) -> None:
    for status, code, said in (
        (401, "invalid_api_key", "This server wants a key"),
        (413, "request_too_large", "That is too much at once"),
        (400, "context_length_exceeded", "This no longer fits"),
        (503, "model_loading", "The model is still loading"),
        (500, "internal_error", "Something broke on the server"),
        (400, "never_heard_of", "The server does not accept this"),
    ):
        refuse_with(page, status, code)
        fails(page)
        expect(page.tab.locator(".turn:last-child .failure strong")).to_have_text(said)
        let_through(page)
        page.tab.click("#new-chat")


def test_the_key_is_sent_and_never_copied(page: Playground) -> None:
    page.show_panel("settings")
    page.tab.fill("#api-key", "sk-secret")
    page.tab.locator("#settings [name=max_tokens]").fill("2")
    with page.tab.expect_request("**/v1/chat/completions") as sent:
        page.ask_and_read("Hi")
    assert sent.value.headers["authorization"] == "Bearer sk-secret"
    page.show_panel("inspector")
    assert "sk-secret" not in page.tab.locator("#inspector").inner_text()


def test_metrics_elsewhere_leave_the_rest(page: Playground) -> None:
    page.refused.append(404)  # the console will name it
    page.tab.route("**/metrics", lambda route: route.fulfill(status=404))
    page.open()
    expect(page.tab.locator("#state-text")).to_have_text("Ready")
    expect(page.tab.locator("#load")).to_be_empty()


def test_a_server_that_does_not_answer_is_found_again(page: Playground) -> None:
    page.tab.route("**/v1/models", lambda _: None)
    expect(page.tab.locator("#state-text")).to_have_text("Not reachable", timeout=60_000)
    page.tab.unroute("**/v1/models")
    expect(page.tab.locator("#state-text")).to_have_text("Ready")
