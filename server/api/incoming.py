"""What comes in over HTTP before anybody looks at its meaning: the body, and the client's leaving.

A body is counted while it is read and decoded strictly: UTF-8, no NaN or Infinity, no lone
surrogates, no numbers that overflow, bounded nesting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from server.errors import ApiError, invalid

T = TypeVar("T")


async def read_json(request: Request, limit_bytes: int) -> dict[str, Any]:
    """The JSON object in the body.

    Raises:
        ApiError: 415, 413 or 400.
    """
    _check_media_type(request)
    return parse_object(await _read_body(request, limit_bytes))


def _check_media_type(request: Request) -> None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise ApiError(
            415,
            "unsupported_media_type",
            "The body must be JSON. Send it with the header 'content-type: application/json'.",
        )
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ApiError(
            415,
            "unsupported_media_type",
            "Compressed bodies are not accepted. Send the body without content-encoding.",
        )


async def _read_body(request: Request, limit_bytes: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit_bytes:
        raise _too_large(limit_bytes)
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > limit_bytes:
            raise _too_large(limit_bytes)
    return bytes(body)


def _too_large(limit_bytes: int) -> ApiError:
    return ApiError(
        413,
        "request_too_large",
        f"The request body is larger than {limit_bytes} bytes, the limit of this server. "
        "Send fewer or smaller pictures.",
    )


def parse_object(body: bytes) -> dict[str, Any]:
    """Decodes a JSON object strictly.

    Raises:
        ApiError: 400 `invalid_json`.
    """
    try:
        value = msgspec.json.decode(body)
    except RecursionError:
        raise invalid("The JSON is nested too deeply.", param=None, code="invalid_json") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise invalid(
            "The body is not valid JSON: UTF-8 without NaN, Infinity, lone surrogates or numbers "
            "that overflow is expected.",
            param=None,
            code="invalid_json",
        ) from None
    if not isinstance(value, dict):
        raise invalid("The body must be a JSON object.", param=None, code="invalid_json")
    return value


async def until_disconnect(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Result of `work`, which is cancelled when the client goes away first.

    Starlette watches the client only while a response is streamed. The body must have been read.

    Raises:
        ClientDisconnect: the client went away.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        watching.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
