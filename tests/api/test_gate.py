"""Keys as clients meet them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from server.messages import Delta, FinishReason
from tests.api.fake_engine import FakeEngine, says, silent, until
from tests.api.harness import RunningApi, chat, picture_part

KEYS = (
    "ann key-of-ann\nbob key-of-bob requests_per_minute=2\n"
    "cat key-of-cat concurrent=1\ndan key-of-dan\n"
    "eve key-of-eve tokens_per_minute=60\n"
)
PROMPT = {"prompt": "Hi"}
RESPONSE = {"model": "tiny", "input": "Hi"}
COUNTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions/input_tokens": chat(),
    "/v1/responses/input_tokens": RESPONSE,
    "/v1/messages/count_tokens": chat(),
    "/tokenize": PROMPT,
    "/detokenize": {"tokens": [5]},
}
"""Requests that only count or spell tokens."""
COUNTERS = {path: f"counter{number}" for number, path in enumerate(COUNTS)}
KEYS += "".join(f"{name} key-of-{name} requests_per_minute=1\n" for name in COUNTERS.values())


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningApi, FakeEngine]]:
    run_dir = tmp_path_factory.mktemp("run")
    (run_dir / "keys").write_text(KEYS)
    options: dict[str, Any] = {
        "api_key_file": run_dir / "keys",
        "isolate_cache_by_key": True,
        "max_waiting_prompt_tokens": 50,
    }
    with FakeEngine(run_dir, says([5])) as engine, RunningApi(run_dir, **options) as api:
        api.wait_until_ready()
        yield api, engine


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer key-of-{name}"}


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models",
        "/metrics",
        "/version",
        "/docs",
        "/openapi.json",
        "/v1/capabilities",
        "/nothing",
        "/health/",
        "/.//health",
        "/HEALTH",
        "/health%2f..%2fversion",
        "/playground/none.js",
        "/v1/responses/resp_1",
    ],
)
def test_every_path_needs_a_key(rig: tuple[RunningApi, FakeEngine], path: str) -> None:
    response = rig[0].client.get(path, headers={"host": "x/health?"})
    assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key")
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/health", "/livez", "/readyz"])
def test_probes_do_not(rig: tuple[RunningApi, FakeEngine], path: str) -> None:
    assert rig[0].client.get(path).status_code == 200


@pytest.mark.parametrize("path", ["/", "/playground/index.html"])
def test_the_playground_loads_without_one(rig: tuple[RunningApi, FakeEngine], path: str) -> None:
    """It asks for the key itself."""
    assert rig[0].client.get(path).status_code == 200
    assert rig[0].client.get("/playground/../version").status_code == 401


def test_anthropics_shape(rig: tuple[RunningApi, FakeEngine]) -> None:
    refused = rig[0].client.post("/v1/messages", json={})
    assert refused.status_code == 401
    assert refused.json()["error"]["type"] == "authentication_error"
    passed = rig[0].client.post("/v1/messages", json={}, headers={"x-api-key": "key-of-ann"})
    assert passed.status_code == 400


def test_the_key_is_never_told(
    rig: tuple[RunningApi, FakeEngine], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    api = rig[0]
    assert api.post(chat(), headers=bearer("ann")).status_code == 200
    pages = [api.client.get(p, headers=bearer("ann")).text for p in ("/version", "/metrics")]
    assert "key=ann" in caplog.text
    assert "key-of-" not in caplog.text + "".join(pages)


def test_requests_per_minute_and_their_headers(rig: tuple[RunningApi, FakeEngine]) -> None:
    api = rig[0]
    for left in (1, 0):
        response = api.post(chat(), headers=bearer("bob"))
        assert response.status_code == 200
        assert response.headers["x-ratelimit-limit-requests"] == "2"
        assert response.headers["x-ratelimit-remaining-requests"] == str(left)
    refused = api.post(chat(), headers=bearer("bob"))
    assert (refused.status_code, refused.json()["error"]["type"]) == (429, "rate_limit_error")
    assert int(refused.headers["retry-after"]) > 1
    assert api.post(chat(), headers=bearer("ann")).status_code == 200


@pytest.mark.parametrize("path", COUNTS)
def test_who_counts_tokens_is_counted(rig: tuple[RunningApi, FakeEngine], path: str) -> None:
    headers = bearer(COUNTERS[path])
    counted = rig[0].client.post(path, json=COUNTS[path], headers=headers)
    assert (counted.status_code, counted.headers["x-ratelimit-remaining-requests"]) == (200, "0")
    refused = rig[0].client.post(path, json=COUNTS[path], headers=headers)
    assert refused.status_code == 429
    assert refused.json()["error"]["type"] == "rate_limit_error"


def test_a_prompt_that_is_not_taken_costs_no_tokens(rig: tuple[RunningApi, FakeEngine]) -> None:
    api, engine = rig
    body = {"model": "tiny", "prompt": [5] * 40}
    script, engine.script = engine.script, silent
    engine.received.clear()
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(
            api.client.post, "/v1/completions", json=body, headers=bearer("ann")
        )
        submit = engine.wait_for_requests()[0].submit
        refused = api.client.post("/v1/completions", json=body, headers=bearer("eve"))
        engine.send(Delta(submit.id, [5], FinishReason.LENGTH))
        assert waiting.result().status_code == 200
    engine.script = script
    assert refused.status_code == 429
    assert "are waiting" in refused.json()["error"]["message"]
    assert refused.headers["x-ratelimit-remaining-tokens"] == "60"
    taken = api.client.post("/v1/completions", json=body, headers=bearer("eve"))
    assert int(taken.headers["x-ratelimit-remaining-tokens"]) < 60


def test_a_slot_comes_back_however_a_request_ends(rig: tuple[RunningApi, FakeEngine]) -> None:
    api, engine = rig
    # The slot comes back a moment after the last byte.
    for _ in range(3):
        until(lambda: api.post(chat(top_p=3), headers=bearer("cat")).status_code == 400)
        until(lambda: api.post(chat(), headers=bearer("cat")).status_code == 200)
        until(lambda: api.post(chat(), headers=bearer("cat")).status_code == 200)
    engine.script = lambda submit: [Delta(submit.id, [5])]
    until(lambda: api.post(chat(top_p=3), headers=bearer("cat")).status_code == 400)
    with api.client.stream(
        "POST", "/v1/chat/completions", json=chat(stream=True), headers=bearer("cat")
    ) as response:
        assert response.status_code == 200
        assert api.post(chat(), headers=bearer("cat")).status_code == 429
        engine.send(Delta(engine.received[-1].submit.id, [5], FinishReason.LENGTH))
        response.read()
    engine.script = says([5])
    until(lambda: api.post(chat(), headers=bearer("cat")).status_code == 200)


def test_tenants_share_no_cache(rig: tuple[RunningApi, FakeEngine]) -> None:
    api, engine = rig
    engine.received.clear()
    for name in ("ann", "ann", "cat"):
        assert api.post(chat([picture_part()]), headers=bearer(name)).status_code == 200
    one, same, other = (received.submit for received in engine.received)
    assert (one.tenant, other.tenant) == (b"ann", b"cat")
    assert one.cache_salt == same.cache_salt != other.cache_salt
    assert one.images[0].digest == same.images[0].digest != other.images[0].digest


def test_a_file_that_cannot_be_used_is_refused_at_start(tmp_path: Path) -> None:
    api = RunningApi(tmp_path, api_key_file=tmp_path / "none")
    with pytest.raises(Exception, match="cannot be read"):
        api.__enter__()
    api.close()


def test_a_stored_response_is_there_for_its_own_key_alone(
    rig: tuple[RunningApi, FakeEngine],
) -> None:
    api, _ = rig
    body = {"model": "tiny", "input": "Hi"}
    made = api.client.post("/v1/responses", json=body, headers=bearer("ann"))
    assert made.status_code == 200, made.text
    path = f"/v1/responses/{made.json()['id']}"
    for key, status in (("ann", 200), ("dan", 404), ("ann", 200)):
        headers = bearer(key)
        assert api.client.get(path, headers=headers).status_code == status
        assert api.client.get(f"{path}/input_items", headers=headers).status_code == status
    assert api.client.post(f"{path}/cancel", headers=bearer("dan")).status_code == 404
    assert api.client.delete(path, headers=bearer("dan")).status_code == 404
    next_body = {**body, "previous_response_id": made.json()["id"]}
    for route in ("/v1/responses", "/v1/responses/input_tokens"):
        stolen = api.client.post(route, json=next_body, headers=bearer("dan"))
        code = stolen.json()["error"]["code"]
        assert (stolen.status_code, code) == (400, "previous_response_not_found")
        own = api.client.post(route, json=next_body, headers=bearer("ann"))
        assert own.status_code == 200, own.text
    assert api.client.delete(path, headers=bearer("ann")).status_code == 200
