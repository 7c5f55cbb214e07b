"""Responses with a JSON body, errors among them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

from server.errors import ApiError

RETRIED = (429, 503)
"""What passes: too much to do, loading, restarting, draining."""


def json_response(
    value: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    return Response(
        msgspec.json.encode(value),
        status,
        headers=headers,
        media_type="application/json",
    )


def error_response(failure: ApiError) -> Response:
    """The error with what OpenAI's clients look at before they try again by themselves."""
    headers = dict(failure.headers)
    if (retry_after := headers.get("retry-after", "")).isdecimal():
        headers["retry-after-ms"] = str(int(retry_after) * 1000)
    if failure.status in RETRIED:
        headers.setdefault("x-should-retry", "true")
    elif failure.status < 500:
        headers["x-should-retry"] = "false"
    return json_response(failure.body(), failure.status, headers)


def internal_error() -> ApiError:
    """500: what went wrong is in the log, under the request's id."""
    return ApiError(500, "internal_error", "The server failed to answer this request.")
