"""What comes in over HTTP before anybody looks at its meaning: the body, and the client's leaving.

A body is decoded strictly: UTF-8, no NaN or Infinity, no lone surrogates, no numbers that overflow,
bounded nesting, a bounded number of values.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from server.api.bodies import Bodies
from server.errors import ApiError, invalid

T = TypeVar("T")

JSON_VALUES_MAX = 300_000
VALUE_MARKS = (b",", b"[", b"{")
"""Each value of a JSON text follows one of these."""


async def read_json(request: Request, bodies: Bodies) -> dict[str, Any]:
    """The JSON object in the body.

    Raises:
        ApiError: 415, 413, 429 or 400.
    """
    _check_media_type(request)
    return parse_object(await bodies.read(request), bodies.limits.max_json_values)


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


def parse_object(body: bytes, values_max: int = JSON_VALUES_MAX) -> dict[str, Any]:
    """Decodes a JSON object strictly.

    Args:
        values_max: bounds what decoding costs: long strings are cheap, many values are not.

    Raises:
        ApiError: 400 `invalid_json`.
    """
    if len(body) > values_max and value_count(body) > values_max:
        raise invalid(
            f"The body has more than {values_max} commas and brackets, the limit of this server.",
            param=None,
            code="invalid_json",
        )
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


def value_count(text: bytes) -> int:
    """Values of a JSON text at most: each follows a comma or a bracket."""
    return sum(map(text.count, VALUE_MARKS))


async def until_disconnect(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Result of `work`, which is cancelled when the client goes away first.

    Starlette watches the client only while a response is streamed. The body must have been read.

    Raises:
        ClientDisconnect: the client went away.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(disconnected(receive))
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        watching.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def disconnected(receive: Receive) -> None:
    """Returns when the client has gone away, or the response is complete."""
    while (await receive())["type"] != "http.disconnect":
        pass
