from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from server.api import kept_responses
from server.api.kept_responses import KeptResponses
from server.api.response_store import StoredResponse
from server.errors import ApiError
from server.settings import Settings

OWNER = "alice"


def kept(run_dir: Path, own: int = 0, processes: int = 2, **options: Any) -> KeptResponses:
    return KeptResponses.of(Settings(api_workers=processes, **options), run_dir, own)


def put(responses: KeptResponses, text: str = "x") -> str:
    id = responses.fresh_id()
    responses.put(OWNER, {"id": id, "output": [{"text": text}]}, [b'{"id":"item"}'])
    return id


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(coroutine)


def test_alone_nothing_is_said_of_others(tmp_path: Path) -> None:
    async def alone() -> None:
        responses = kept(tmp_path, processes=1)
        async with responses.shared():
            id = put(responses)
            assert len(id) == len("resp_") + 32
            assert await responses.get(OWNER, id)
            assert await responses.get(OWNER, "resp_1_" + 32 * "0") is None
        assert list(tmp_path.iterdir()) == []

    run(alone())


def test_a_response_is_found_wherever_it_is_asked_for(tmp_path: Path) -> None:
    async def ask() -> None:
        async with AsyncExitStack() as owned:
            both = [kept(tmp_path, own) for own in range(2)]
            for responses in both:
                await owned.enter_async_context(responses.shared())
            long = "x" * 2**20
            ids = [put(responses, long) for responses in both]
            assert [id[:7] for id in ids] == ["resp_0_", "resp_1_"]
            for responses in both:
                for id in ids:
                    found = await responses.get(OWNER, id)
                    assert isinstance(found, StoredResponse)
                    assert long in found.output_items[0].decode()
                    assert found.input_items == (b'{"id":"item"}',)
                    assert await responses.get("mallory", id) is None
                    assert not await responses.delete("mallory", id)
            assert await both[0].delete(OWNER, ids[1])
            assert not await both[0].delete(OWNER, ids[1])
            assert await both[1].get(OWNER, ids[1]) is None

    run(ask())


@pytest.mark.parametrize("id", ["resp_7_" + 32 * "0", "resp_1_x", "resp_99999_" + 32 * "0", ""])
def test_ids_of_no_process_are_not_found(tmp_path: Path, id: str) -> None:
    async def ask() -> None:
        assert await kept(tmp_path).get(OWNER, id) is None

    run(ask())


def test_what_a_process_kept_has_gone_with_it(tmp_path: Path) -> None:
    async def ask() -> None:
        other, id = kept(tmp_path, 1), ""
        async with other.shared():
            id = put(other)
            assert await kept(tmp_path).get(OWNER, id)
        assert await kept(tmp_path).get(OWNER, id) is None
        async with kept(tmp_path, 1).shared():
            assert await kept(tmp_path).get(OWNER, id) is None

    run(ask())


def test_a_process_that_stands_still_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_responses, "ANSWER_S", 0.05)

    async def ask() -> None:
        async def stand_still(_: object, writer: asyncio.StreamWriter) -> None:
            with closing(writer):
                await asyncio.sleep(60)

        path = tmp_path / "responses-1.sock"
        server = await asyncio.start_unix_server(stand_still, path)
        with pytest.raises(ApiError) as caught:
            await kept(tmp_path).get(OWNER, "resp_1_" + 32 * "0")
        assert (caught.value.status, caught.value.code) == (503, "response_unavailable")
        server.close()

    run(ask())


def test_the_room_is_for_all_together(tmp_path: Path) -> None:
    async def fill() -> None:
        responses = kept(tmp_path, response_store_entries=4)
        ids = [put(responses) for _ in range(3)]
        found = [await responses.get(OWNER, id) is not None for id in ids]
        assert found == [False, True, True]

    run(fill())
