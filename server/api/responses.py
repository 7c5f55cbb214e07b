"""Responses with a JSON body, errors among them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

from server.errors import ApiError


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
    return json_response(failure.body(), failure.status, failure.headers)


def internal_error() -> ApiError:
    """500: what went wrong is in the log, under the request's id."""
    return ApiError(500, "internal_error", "The server failed to answer this request.")
