from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from server.api.access import ChatRecord
from server.messages import Delta
from server.metrics import ApiMetrics
from tests.api.conftest import Rig
from tests.api.fake_engine import FakeEngine, says, until
from tests.api.harness import Background, RunningApi, chat, picture_part
from tests.views import View


def scrape(api: RunningApi) -> dict[str, float]:
    """Every sample by name, with the values of its labels."""
    families = text_string_to_metric_families(api.client.get("/metrics").text)
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in families
        for sample in family.samples
    }


class Change:
    """What a test adds to the counters of a shared server."""

    def __init__(self, api: RunningApi) -> None:
        self._api = api
        self._before = scrape(api)

    def of(self, name: str) -> float:
        name = f"internvl_{name}"
        return scrape(self._api)[name] - self._before.get(name, 0)


@pytest.fixture
def change(rig: Rig) -> Change:
    return Change(rig.api)


def test_an_answer_is_counted_to_the_token_and_in_all_its_times(rig: Rig, change: Change) -> None:
    rig.engine.script = lambda submit: [
        Delta(submit.id, [5], queued_s=2.0, prefill_s=3.0),
        *says([6], [7, 8])(submit),
    ]
    usage = rig.api.post(chat([picture_part(), {"type": "text", "text": "Hi"}])).json()["usage"]
    until(lambda: change.of("request_seconds_count") == 1)
    assert change.of("request_prompt_tokens_sum") == usage["prompt_tokens"]
    assert change.of("request_output_tokens_sum") == usage["completion_tokens"] == 4
    assert change.of("image_tokens_total") == usage["prompt_tokens_details"]["image_tokens"] == 4
    assert change.of("time_to_first_token_seconds_count") == 1
    assert change.of("inter_token_latency_seconds_count") == usage["completion_tokens"] - 1
    assert change.of("time_per_output_token_seconds_count") == 1
    assert change.of("queue_seconds_sum") == pytest.approx(2)
    assert change.of("prefill_seconds_sum") == pytest.approx(3)
    assert change.of("prepare_seconds_count") == change.of("decode_seconds_count") == 1
    assert change.of("picture_decode_seconds_count") == 1
    assert change.of("requests_finished_total length") == 1


def test_times_are_between_what_they_say() -> None:
    record = ChatRecord("id", "chat", ApiMetrics(View()), began_at=1)
    record.read_at, record.submitted_at, record.first_token_at = 2, 4, 7
    record.last_token_at = {0: 8, 1: 12}
    assert (record.prepare_s, record.time_to_first_token_s, record.decode_s) == (2, 6, 5)


def test_times_of_what_has_not_come_are_unknown() -> None:
    record = ChatRecord("id", "chat", ApiMetrics(View()))
    assert record.prepare_s is record.time_to_first_token_s is record.decode_s is None


def test_failures_are_counted_by_code(rig: Rig, change: Change) -> None:
    rig.api.post(chat(n=0))
    assert change.of("request_errors_total integer_below_min_value") == 1
    assert change.of("request_seconds_count") == 0


def test_a_refusal_is_counted_by_reason(tmp_path: Path) -> None:
    with FakeEngine(tmp_path) as engine, RunningApi(tmp_path, max_waiting_requests=2) as api:
        api.wait_until_ready()
        with Background(api, chat(n=2)):
            received = engine.wait_for_requests(2)
            assert api.post(chat()).status_code == 429
            for one in received:
                engine.send(*says([5])(one.submit))
        until(lambda: scrape(api)["internvl_requests_finished_total length"] == 2)
        assert scrape(api)["internvl_requests_refused_total rate_limit_exceeded"] == 1
        assert scrape(api)["internvl_request_errors_total rate_limit_exceeded"] == 1


def test_a_client_that_leaves_is_counted(rig: Rig, change: Change) -> None:
    rig.engine.script = lambda submit: [Delta(submit.id, [5])]
    with rig.api.stream(chat()) as response:
        next(response.iter_lines())
    until(lambda: change.of("requests_finished_total cancelled") == 1)
    assert change.of("request_seconds_count") == 0
