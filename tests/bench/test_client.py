from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import pytest

from benchmarks.null_server import MODEL, TEMPLATE_TOKENS, VERSION, NullServer
from server.bench.calibrate import words_for
from server.bench.client import Measured, Server
from server.bench.plan import BenchError


def ask(text: str, null: NullServer, **fields: Any) -> tuple[Measured, str]:
    async def main() -> tuple[Measured, str]:
        server = Server(await null.start(), None, "none")
        try:
            await server.describe()
            epoch_s = time.perf_counter()
            body = {"messages": [{"role": "user", "content": text}], "max_tokens": 4, **fields}
            return await server.ask(body, epoch_s=epoch_s, due_s=0.0)
        finally:
            await server.close()
            await null.stop()

    return asyncio.run(main())


def test_what_a_client_sees_of_an_answer() -> None:
    null = NullServer(first_s=0.05, gap_s=0.02)
    measured, text = ask("one two", null)
    assert measured.error is None
    assert text == "a a a a "
    assert (measured.prompt_tokens, measured.output_tokens) == (2 + TEMPLATE_TOKENS, 4)
    assert measured.finish == "length"
    assert measured.first_token_s is not None
    assert measured.first_token_s >= 0.05, "the chunk with the role is no token"
    assert len(measured.gaps_s) == 3
    assert min(measured.gaps_s) > 0
    assert measured.end_to_end_s >= 0.05 + 3 * 0.02
    assert measured.end_to_end_s == pytest.approx(measured.first_token_s + sum(measured.gaps_s))
    assert measured.per_output_token_s == pytest.approx(sum(measured.gaps_s) / 3)
    assert 0 <= measured.lag_s == measured.sent_s


def test_the_body_asks_for_a_stream_with_usage() -> None:
    null = NullServer()
    ask("one", null, ignore_eos=True)
    (body,) = null.bodies
    assert body["model"] == MODEL
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}
    assert (body["temperature"], body["ignore_eos"]) == (0, True)


def test_one_token_has_no_time_per_token() -> None:
    assert ask("one", NullServer(), max_tokens=1)[0].per_output_token_s is None


@pytest.mark.parametrize(("word", "told"), [("fail", "HTTP 400: .*asked to fail"), ("break", ".+")])
def test_failures_are_told(word: str, told: str) -> None:
    measured, _ = ask(word, NullServer())
    assert measured.error is not None
    assert re.match(told, measured.error)


def test_a_kept_connection_that_the_server_has_left_is_no_failure() -> None:
    null = NullServer()

    async def main() -> list[str | None]:
        server = Server(await null.start(), MODEL, "none")
        errors: list[str | None] = []
        try:
            for text in ("leave", "stay"):
                fields = {"messages": [{"role": "user", "content": text}], "max_tokens": 2}
                measured, _ = await server.ask(fields, epoch_s=time.perf_counter(), due_s=0.0)
                errors.append(measured.error)
        finally:
            await server.close()
            await null.stop()
        return errors

    assert asyncio.run(main()) == [None, None]
    assert len(null.bodies) == 2


def test_the_server_is_described() -> None:
    async def main() -> dict[str, Any]:
        null = NullServer()
        server = Server(await null.start(), None, "none")
        described = await server.describe()
        await server.close()
        await null.stop()
        return described

    described = asyncio.run(main())
    assert (described["model"], described["version"]) == (MODEL, {"version": VERSION})


def test_nobody_there_is_explained() -> None:
    async def main() -> None:
        server = Server("http://127.0.0.1:9/v1", None, "none")
        try:
            await server.describe()
        finally:
            await server.close()

    with pytest.raises(BenchError, match="no answer from http://"):
        asyncio.run(main())


def test_words_are_counted_by_the_server() -> None:
    async def main() -> int:
        null = NullServer()
        server = Server(await null.start(), MODEL, "none")
        words = await words_for(server)
        await server.close()
        await null.stop()
        return words(100)

    assert asyncio.run(main()) == 100 - TEMPLATE_TOKENS


def test_a_server_that_counts_no_tokens_is_refused() -> None:
    async def main() -> None:
        null = NullServer(usage=False)
        server = Server(await null.start(), MODEL, "none")
        try:
            await words_for(server)
        finally:
            await server.close()
            await null.stop()

    with pytest.raises(BenchError, match="reports no usage"):
        asyncio.run(main())
