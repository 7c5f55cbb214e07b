from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from server.api.incoming import parse_object, until_disconnect
from server.errors import ApiError


def test_parses_an_object() -> None:
    body = '{"a": [1, 2.5, "ü🎉", null, true], "b": {"c": "\\ud83c\\udf89"}}'.encode()
    assert parse_object(body) == {"a": [1, 2.5, "ü🎉", None, True], "b": {"c": "🎉"}}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"a": 1,}',
        b"{'a': 1}",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": "\\ud800"}',
        b'{"a": "\\udc00x"}',
        b'{"a": "\xff"}',
        b'{"a": "\xed\xa0\x80"}',
        b'{"a": ' + b"1" * 5000 + b"}",
        b'{"a": 1} {"b": 2}',
        b"[" * 100_000,
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
        b"[]",
        b'"text"',
        b"null",
    ],
)
def test_refuses_what_is_no_json_object(body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        parse_object(body)
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")


def test_error_of_deep_nesting_says_so() -> None:
    with pytest.raises(ApiError, match="nested too deeply"):
        parse_object(b"[" * 100_000)


class Client:
    """The receiving end of an ASGI application whose client leaves when told."""

    def __init__(self) -> None:
        self.leave = asyncio.Event()

    async def receive(self) -> Message:
        await self.leave.wait()
        return {"type": "http.disconnect"}


def test_result_of_work_that_ends_while_the_client_waits() -> None:
    async def run() -> None:
        async def work() -> str:
            await asyncio.sleep(0)
            return "done"

        assert await until_disconnect(Client().receive, work()) == "done"
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())


def test_an_error_of_the_work_is_passed_on() -> None:
    async def run() -> None:
        async def work() -> None:
            raise ApiError(400, "code", "Message.")

        with pytest.raises(ApiError):
            await until_disconnect(Client().receive, work())

    asyncio.run(run())


@pytest.mark.parametrize("raised_on_the_way_out", [None, ValueError("late")])
def test_work_is_cancelled_when_the_client_leaves(raised_on_the_way_out: Any) -> None:
    async def run() -> None:
        client, cleaned = Client(), False

        async def work() -> None:
            nonlocal cleaned
            try:
                client.leave.set()
                await asyncio.sleep(10)
            finally:
                cleaned = True
                if raised_on_the_way_out is not None:
                    raise raised_on_the_way_out

        with pytest.raises(ClientDisconnect):
            await until_disconnect(client.receive, work())
        assert cleaned

    asyncio.run(run())


def test_work_is_cancelled_with_the_caller() -> None:
    async def run() -> None:
        ended = asyncio.Event()

        async def work() -> None:
            try:
                await asyncio.sleep(10)
            finally:
                ended.set()

        caller = asyncio.create_task(until_disconnect(Client().receive, work()))
        await asyncio.sleep(0.01)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert ended.is_set()

    asyncio.run(run())


def test_values_are_counted_before_they_are_parsed() -> None:
    assert parse_object(b'{"a":"' + b"x" * 5000 + b'"}', 100)
    for body in (b'{"a":[' + b"0," * 100 + b"0]}", b'{"a":[' + b"[],{}," * 50 + b"0]}"):
        with pytest.raises(ApiError) as caught:
            parse_object(body, 100)
        assert (caught.value.code, caught.value.param) == ("invalid_json", None)
        assert "100 commas and brackets" in caught.value.message
