"""Traces of requests through OpenTelemetry, where the operator asked for them.

A request's spans are made when it is over, from the times that its record has anyway: nothing is
added to the path of a token. The W3C context of the caller becomes the parent. Spans hold numbers
and our own words, never text.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from server.errors import StartupError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from server.api.access import ChatRecord

EXPORT_S = 2
"""Longest attempt to send spans: a collector that is away must not delay the end of the daemon."""

MISSING = "--otlp-endpoint needs the extra: pip install 'internvl-serve[otel]', or leave it out"


class Tracer(Protocol):
    """Told of every request that is over."""

    def request(self, record: ChatRecord, status: int) -> None: ...

    def close(self) -> None:
        """Sends what is left."""


class Untraced:
    """Does nothing."""

    def request(self, record: ChatRecord, status: int) -> None: ...

    def close(self) -> None: ...


class OpenTelemetryTracer:
    """request → prepare, queue, prefill, decode."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("internvl-serve")

    def request(self, record: ChatRecord, status: int) -> None:
        from opentelemetry import trace  # noqa: PLC0415 - an extra
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
            TraceContextTextMapPropagator,
        )

        context = TraceContextTextMapPropagator().extract(record.caller)
        # Records have monotonic times; spans have those of the day.
        offset_s = time.time() - time.monotonic()
        span = self._tracer.start_span(
            record.kind,
            context,
            kind=trace.SpanKind.SERVER,
            attributes=_attributes(record, status),
            start_time=_ns(record.began_at + offset_s),
        )
        if record.failure is not None:
            span.set_status(trace.StatusCode.ERROR, record.failure)
        inside = trace.set_span_in_context(span)
        for name, began_at, ended_at in record.phases():
            part = self._tracer.start_span(name, inside, start_time=_ns(began_at + offset_s))
            part.end(_ns(ended_at + offset_s))
        span.end(_ns(time.time()))

    def close(self) -> None:
        self._provider.shutdown()


def open_tracer(endpoint: str | None, version: str) -> Tracer:
    """A tracer that sends to an OTLP/HTTP collector; one that does nothing without an endpoint.

    Raises:
        StartupError: the extra is not installed.
    """
    if endpoint is None:
        return Untraced()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError:
        raise StartupError(MISSING) from None
    named = {"service.name": "internvl-serve", "service.version": version}
    provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_S)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return OpenTelemetryTracer(provider)


def caller_of(headers: Mapping[str, str]) -> dict[str, str]:
    """The W3C trace context of whoever sent the request."""
    return {name: headers[name] for name in ("traceparent", "tracestate") if name in headers}


def _attributes(record: ChatRecord, status: int) -> dict[str, Any]:
    answer = record.answer
    known = {
        "http.response.status_code": status,
        "internvl.request_id": record.request_id,
        "internvl.pictures": record.pictures,
        "internvl.end": record.end(),
        "gen_ai.usage.input_tokens": answer and answer.prompt_tokens,
        "gen_ai.usage.output_tokens": answer and answer.output_tokens,
        "internvl.cached_tokens": answer and answer.cached_tokens,
    }
    return {name: value for name, value in known.items() if value is not None}


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
