"""Two API processes of one daemon, as two servers in threads: what they have together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.heartbeat import Heartbeat
from server.messages import Delta, FinishReason, Outputs, StepReport
from tests.api.fake_engine import RUNNING, FakeEngine, says, until
from tests.api.harness import MODEL, Background, RunningApi, chat


@contextmanager
def two(run_dir: Path, **options: Any) -> Iterator[list[RunningApi]]:
    with (
        RunningApi(run_dir, place=0, api_workers=2, **options) as first,
        RunningApi(run_dir, place=1, api_workers=2, **options) as second,
    ):
        for api in (first, second):
            api.wait_until_ready()
        yield [first, second]


def page(api: RunningApi) -> dict[str, float]:
    lines = api.client.get("/metrics").text.splitlines()
    samples = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in samples}


def test_every_page_shows_the_sums_and_the_engine_once(tmp_path: Path) -> None:
    with FakeEngine(tmp_path, says([5], [6])) as engine, two(tmp_path) as both:
        for api, requests in zip(both, (2, 3), strict=True):
            for _ in range(requests):
                assert api.post(chat()).status_code == 200
        both[1].post(chat(model="nobody"))
        for api in both:
            numbers = page(api)
            assert numbers["internvl_requests_running"] == RUNNING.requests_running
            assert numbers["internvl_kv_blocks"] == RUNNING.kv_blocks
            assert numbers['internvl_requests_finished_total{finished_reason="length"}'] == 5
            assert numbers["internvl_time_to_first_token_seconds_count"] == 5
            assert numbers["internvl_request_output_tokens_sum"] == 10
            assert numbers['internvl_request_errors_total{code="model_not_found"}'] == 1
            assert numbers['internvl_http_responses_total{code="404"}'] == 1
            assert numbers[f'vllm:time_to_first_token_seconds_count{{model_name="{MODEL}"}}'] == 5
        engine.send_all(Outputs([], RUNNING, StepReport(0.02, 300)))
        for api in both:
            until(lambda api=api: page(api)["internvl_step_tokens_count"] == 1)  # type: ignore[misc]
            assert page(api)["internvl_step_tokens_sum"] == 300


def test_what_a_process_counted_outlives_it(tmp_path: Path) -> None:
    answered = "internvl_time_to_first_token_seconds_count"
    with FakeEngine(tmp_path, says([5])), RunningApi(tmp_path, api_workers=2) as first:
        first.wait_until_ready()
        for _ in range(2):
            with RunningApi(tmp_path, place=1, api_workers=2) as second:
                second.wait_until_ready()
                assert second.post(chat()).status_code == 200
        assert page(first)[answered] == 2


def test_open_choices_are_bounded_together(tmp_path: Path) -> None:
    with FakeEngine(tmp_path) as engine, two(tmp_path, max_waiting_requests=2) as both:
        with Background(both[0], chat(n=2)) as open_one:
            engine.wait_for_requests(2)
            for api in both:
                refused = api.post(chat())
                assert refused.status_code == 429
                assert "holds 2 unfinished choices" in refused.json()["error"]["message"]
            engine.script = says([5])
            for received in engine.received:
                delta = Delta(received.submit.id, [5], FinishReason.LENGTH)
                engine.send_all(Outputs([delta], RUNNING))
            assert open_one.response().status_code == 200
        assert [api.post(chat()).status_code for api in both] == [200, 200]


@pytest.mark.parametrize(
    "limit", [{"max_waiting_prompt_tokens": 40}, {"max_total_body_bytes": 3000}]
)
def test_what_waits_is_bounded_together(tmp_path: Path, limit: dict[str, int]) -> None:
    with FakeEngine(tmp_path) as engine, two(tmp_path, **limit) as both:
        body = chat("x " * 20, user="x" * 1500)
        with Background(both[0], body) as first:
            submit = engine.wait_for_requests()[0].submit
            assert both[1].post(body).status_code == 429
            engine.script = says([5])
            engine.send_all(Outputs([Delta(submit.id, [5], FinishReason.LENGTH)], RUNNING))
            assert first.response().status_code == 200
        until(lambda: both[1].post(body).status_code == 200)


def test_connections_are_bounded_together(tmp_path: Path) -> None:
    with FakeEngine(tmp_path), two(tmp_path, max_connections=2) as both:
        both[0].client.close()
        with httpx.Client(base_url=both[1].url) as another:

            def refused() -> bool:
                for client in (both[1].client, another):
                    assert client.get("/livez").status_code == 200
                answer = httpx.get(f"{both[0].url}/livez")
                return answer.status_code == 503 and "has 2 connections" in answer.text

            until(refused)
        until(lambda: httpx.get(f"{both[0].url}/livez").status_code == 200)


def test_a_key_has_its_quota_once(tmp_path: Path) -> None:
    with FakeEngine(tmp_path, says([5])), two(tmp_path, key_requests_per_minute=3) as both:
        answers = [both[number % 2].post(chat()) for number in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        left = [answer.headers["x-ratelimit-remaining-requests"] for answer in answers]
        assert left == ["2", "1", "0", "0"]


def test_a_conversation_goes_on_at_another_process(tmp_path: Path) -> None:
    with FakeEngine(tmp_path, says([5])) as engine, two(tmp_path) as both:
        body: dict[str, Any] = {"model": MODEL, "input": "Hi"}
        first = both[0].client.post("/v1/responses", json=body).json()
        assert first["id"].startswith("resp_0_")
        body["previous_response_id"] = first["id"]
        second = both[1].client.post("/v1/responses", json=body)
        assert second.status_code == 200, second.text
        assert second.json()["id"].startswith("resp_1_")
        assert len(engine.received[1].prompt) > len(engine.received[0].prompt)
        path = f"/v1/responses/{first['id']}"
        assert both[1].client.get(path).json() == first
        assert both[1].client.get(f"{path}/input_items").json()["data"]
        assert both[1].client.delete(path).json()["deleted"] is True
        assert both[0].client.get(path).status_code == 404


def test_who_joins_late_begins_when_the_engine_has_answered(tmp_path: Path) -> None:
    with FakeEngine(tmp_path, says([5])), Heartbeat(tmp_path) as heartbeat:
        heartbeat.beat()
        with RunningApi(tmp_path, place=1, api_workers=2) as late:
            assert late.client.get("/readyz").status_code == 200
