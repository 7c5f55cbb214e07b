from __future__ import annotations

import http.server
import sys
import threading
import time
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from server.api.access import ChatRecord
from server.api.tracing import OpenTelemetryTracer, Untraced, caller_of, open_tracer
from server.errors import StartupError
from server.messages import Delta
from server.metrics import ApiMetrics
from tests.api.fake_engine import FakeEngine, says
from tests.api.harness import RunningApi, chat
from tests.views import View

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALLER = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


def traced(record: ChatRecord, status: int = 200) -> dict[str, ReadableSpan]:
    """Spans of a record by name, as a collector would get them."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = OpenTelemetryTracer(provider)
    tracer.request(record, status)
    tracer.close()
    return {span.name: span for span in exporter.get_finished_spans()}


def seconds(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


def answered() -> ChatRecord:
    """As a request that began ten seconds ago looks when it is over."""
    began_at = time.monotonic() - 10
    return ChatRecord(
        "req-1",
        "chat",
        ApiMetrics(View()),
        caller=CALLER,
        began_at=began_at,
        read_at=began_at + 0.5,
        submitted_at=began_at + 1.5,
        queued_s=2.0,
        prefill_s=1.0,
        first_token_at=began_at + 5,
        last_token_at={0: began_at + 9},
    )


def test_a_request_is_a_span_with_its_phases_under_the_callers() -> None:
    spans = traced(answered())
    assert set(spans) == {"chat", "prepare", "queue", "prefill", "decode"}
    request = spans.pop("chat")
    assert request.context is not None
    assert f"{request.context.trace_id:032x}" == TRACE
    assert request.parent is not None
    assert f"{request.parent.span_id:016x}" == PARENT
    assert seconds(request) == pytest.approx(10, abs=1)
    for span in spans.values():
        assert span.parent is not None
        assert span.parent.span_id == request.context.span_id
    lengths = {name: seconds(span) for name, span in spans.items()}
    assert lengths == pytest.approx({"prepare": 1, "queue": 2, "prefill": 1, "decode": 4})
    assert spans["queue"].end_time == pytest.approx(spans["prefill"].start_time)
    assert request.attributes is not None
    assert request.attributes["http.response.status_code"] == 200


def test_a_request_that_failed_early_has_no_phases_and_a_status() -> None:
    record = ChatRecord("req-1", "chat", ApiMetrics(View()), failure="invalid_value")
    (span,) = traced(record, 400).values()
    assert span.parent is None
    assert not span.status.is_ok
    assert span.status.description == "invalid_value"


def test_a_broken_context_starts_a_trace_of_its_own() -> None:
    record = ChatRecord("r", "chat", ApiMetrics(View()), caller={"traceparent": "00-zz"})
    assert traced(record)["chat"].parent is None


def test_only_the_context_is_taken_from_the_headers() -> None:
    assert caller_of({**CALLER, "authorization": "secret"}) == CALLER


def test_without_an_endpoint_nothing_is_traced() -> None:
    assert isinstance(open_tracer(None, "1"), Untraced)


def test_a_missing_extra_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(StartupError, match=r"internvl-serve\[otel\]"):
        open_tracer("http://127.0.0.1:9", "1")


class Collector(http.server.BaseHTTPRequestHandler):
    """Keeps what is sent to it."""

    bodies: list[tuple[str, bytes]]

    def do_POST(self) -> None:
        self.bodies.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


def test_spans_of_a_served_request_reach_a_collector(tmp_path: Path) -> None:
    Collector.bodies = []
    collector = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=collector.serve_forever)
    thread.start()
    try:
        endpoint = f"http://127.0.0.1:{collector.server_port}"
        script = says([5], [6])
        with FakeEngine(tmp_path, script), RunningApi(tmp_path, otlp_endpoint=endpoint) as api:
            api.wait_until_ready()
            api.client.post("/v1/chat/completions", json=chat("SECRET"), headers=CALLER)
    finally:
        collector.shutdown()
        thread.join()
        collector.server_close()
    ((path, body),) = Collector.bodies
    assert path == "/v1/traces"
    for part in (b"internvl-serve", b"prefill", b"decode", bytes.fromhex(TRACE)):
        assert part in body
    assert b"SECRET" not in body


def test_the_time_of_a_delta_is_no_phase_without_a_token() -> None:
    record = ChatRecord("r", "chat", ApiMetrics(View()))
    record.take(0, Delta(1, []))
    assert list(record.phases()) == []
