"""What every response carries, whatever answered: an id, the time it took, and OpenAI's error body
when the application failed. Pure ASGI, so streams pass through untouched."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.responses import error_response, internal_error
from server.errors import CLOSE, ApiError, headers_too_large
from server.limits import Limits
from server.metrics import ApiMetrics

log = logging.getLogger(__name__)

REQUEST_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
OPENAI_VERSION = b"2020-10-01"


class Envelope:
    """Outermost middleware. The id is the client's own where it is harmless, and is found in
    `request.state.request_id`; what must happen when the request has ended, however it ends, is
    added to `request.state.at_end`. Connections of a server that leaves end with their answer."""

    def __init__(
        self, app: ASGIApp, metrics: ApiMetrics, leaving: Callable[[], bool] = lambda: False
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._leaving = leaving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with ExitStack() as at_end:
            await self._answer(scope, receive, send, at_end)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, at_end: ExitStack) -> None:
        request_id = _request_id(scope)
        scope.setdefault("state", {}).update(request_id=request_id, at_end=at_end)
        began_at = time.monotonic()
        begun = False

        async def send_with_headers(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                self._metrics.count_response(message["status"])
                passed_ms = round((time.monotonic() - began_at) * 1000)
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", request_id.encode()),
                    (b"openai-version", OPENAI_VERSION),
                    (b"openai-processing-ms", str(passed_ms).encode()),
                ]
                if self._leaving():
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception:
            log.exception("request %s failed", request_id)
            if begun:
                raise  # the server closes the connection, so that nobody takes it for complete
            await error_response(internal_error())(scope, receive, send_with_headers)


def _request_id(scope: Scope) -> str:
    given = Headers(scope=scope).get("x-request-id", "")
    return given if REQUEST_ID.fullmatch(given) else f"req-{uuid.uuid4().hex}"


class Bounds:
    """Refuses requests whose head is too large, before anything looks at them."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        failure = self._objection(scope) if scope["type"] == "http" else None
        app = self._app if failure is None else error_response(failure)
        await app(scope, receive, send)

    def _objection(self, scope: Scope) -> ApiError | None:
        limits, fields = self._limits, scope["headers"]
        if len(scope["raw_path"]) + len(scope["query_string"]) > limits.max_url_bytes:
            return ApiError(
                414,
                "url_too_long",
                f"The URL is longer than {limits.max_url_bytes} bytes, the limit of this server.",
                headers=CLOSE,
            )
        if sum(len(name) + len(value) for name, value in fields) > limits.max_header_bytes:
            return headers_too_large(limits.max_header_bytes)
        if len(fields) > limits.max_header_fields:
            return ApiError(
                431,
                "too_many_headers",
                f"The request has {len(fields)} header fields; this server takes "
                f"{limits.max_header_fields} at most.",
                headers=CLOSE,
            )
        return None
