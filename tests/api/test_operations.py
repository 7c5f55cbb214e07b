from __future__ import annotations

import socket
from pathlib import Path

import httpx
import pytest

from server import __version__
from server.heartbeat import Heartbeat
from server.messages import Gauges
from tests.api.conftest import Rig
from tests.api.fake_engine import READY, FakeEngine, says, until
from tests.api.harness import MODEL, RunningApi, chat


def test_models(rig: Rig) -> None:
    body = rig.api.client.get("/v1/models").json()
    assert body["object"] == "list"
    (model,) = body["data"]
    assert type(model.pop("created")) is int
    assert model == {
        "id": MODEL,
        "object": "model",
        "owned_by": "internvl-serve",
        "root": MODEL,
        "max_model_len": READY.max_model_len,
        "architecture": {
            "input_modalities": ["text", "image", "video"],
            "output_modalities": ["text"],
        },
    }


def test_aliases_and_the_note_of_the_demo_model(tmp_path: Path) -> None:
    names = ("first", "org/second")
    with (
        FakeEngine(tmp_path, says([5])),
        RunningApi(tmp_path, model=None, served_model_name=names) as api,
    ):
        api.wait_until_ready()
        models = api.client.get("/v1/models").json()["data"]
        assert [model["id"] for model in models] == list(names)
        assert {model["root"] for model in models} == {"first"}
        assert "drawn shapes" in models[0]["note"]
        assert api.client.get("/v1/models/org/second").json() == models[1]
        assert api.post(chat() | {"model": "org/second"}).json()["model"] == "first"


def test_a_model_that_is_not_served(rig: Rig) -> None:
    response = rig.api.client.get("/v1/models/nobody/nothing")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("path", ["/health", "/livez", "/readyz"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_health_is_empty_and_200(rig: Rig, path: str, method: str) -> None:
    response = rig.api.client.request(method, path)
    assert (response.status_code, response.content) == (200, b"")


def test_version(rig: Rig) -> None:
    body = rig.api.client.get("/version").json()
    assert body["version"] == __version__
    assert body["models"] == [MODEL]
    assert body["engine"]["max_model_len"] == READY.max_model_len
    assert (body["engine"]["dtype"], body["engine"]["ranks"]) == ("float32", 1)


def test_load_is_what_runs_and_waits(rig: Rig) -> None:
    assert rig.api.client.get("/load").json() == {"server_load": 0}
    rig.engine.send(gauges=Gauges(requests_running=3, requests_waiting=2, kv_blocks=8))
    until(lambda: rig.api.client.get("/load").json() == {"server_load": 5})


def test_metrics_follow_the_engine(rig: Rig) -> None:
    rig.engine.send(gauges=Gauges(requests_running=3, requests_waiting=2, kv_blocks=8))
    until(lambda: rig.api.metric("internvl_requests_running") == 3)
    assert rig.api.metric("internvl_requests_waiting") == 2
    response = rig.api.client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")


def test_metrics_count_responses(rig: Rig) -> None:
    rig.engine.script = says([5])
    rig.api.post(chat())
    rig.api.post_raw(b"{")
    text = rig.api.client.get("/metrics").text
    assert 'internvl_http_responses_total{code="200"}' in text
    assert 'internvl_http_responses_total{code="400"}' in text


def test_a_stalled_engine_is_neither_alive_nor_ready(tmp_path: Path) -> None:
    with (
        FakeEngine(tmp_path),
        RunningApi(tmp_path, step_timeout_s=0.5) as api,
        Heartbeat(tmp_path) as heartbeat,
    ):
        api.wait_until_ready()
        heartbeat.beat()
        assert api.client.get("/livez").status_code == 200
        until(lambda: api.client.get("/livez").status_code == 503)
        assert api.client.get("/health").status_code == 503
        refused = api.client.get("/readyz")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "engine_stalled")
        heartbeat.beat()
        assert api.client.get("/readyz").status_code == 200
        heartbeat.forget()
        assert api.client.get("/livez").status_code == 200


def test_a_second_port_keeps_operations_inside(tmp_path: Path) -> None:
    with FakeEngine(tmp_path):
        api = RunningApi(tmp_path, ops_port=0)
        api.operations_listener = socket.create_server(("127.0.0.1", 0))
        port = api.operations_listener.getsockname()[1]
        with api, httpx.Client(base_url=f"http://127.0.0.1:{port}") as inside:
            api.wait_until_ready()
            for path in ("/metrics", "/version", "/load"):
                assert api.client.get(path).status_code == 404
                assert inside.get(path).status_code == 200
            for path in ("/livez", "/readyz", "/health"):
                assert api.client.get(path).status_code == inside.get(path).status_code == 200
            assert inside.post("/v1/chat/completions", json=chat()).status_code == 404
        until(lambda: api.ended)
