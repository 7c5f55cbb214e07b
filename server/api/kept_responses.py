"""The kept responses of all API processes: each keeps its own, and ids tell whose a response is.

Whoever is asked for a response of another process asks that one, over a socket in the directory of
the daemon. What a process kept has gone with it; one that does not answer is said so in time. A
process that is alone neither has such a socket nor writes its place into ids.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from server.api.response_store import ResponseStore, StoredResponse
from server.errors import ApiError
from server.settings import Settings

ANSWER_S = 2.0

PREFIX = "resp"
KEEPER = re.compile(rf"{PREFIX}_([0-9]{{1,2}})_[0-9a-f]{{32}}")


class Question(msgspec.Struct, frozen=True, array_like=True):
    """For a response, or that it be forgotten."""

    owner: str
    id: str
    forget: bool = False


Answer = StoredResponse | bool | None
"""A bool to who wants it forgotten."""


class KeptResponses:
    """
    Args:
        store: what this process keeps.
        run_dir: where the sockets are.
        own: place of this process among so many `processes`.
    """

    def __init__(
        self, store: ResponseStore, run_dir: Path, own: int = 0, processes: int = 1
    ) -> None:
        self._store = store
        self._run_dir = run_dir
        self._own = own
        self._processes = processes

    @classmethod
    def of(cls, settings: Settings, run_dir: Path, own: int) -> KeptResponses:
        """Room is for all processes together, in equal parts."""
        processes = settings.api_workers
        store = ResponseStore(
            math.ceil(settings.response_store_entries / processes),
            settings.response_store_ttl_s,
            settings.response_store_bytes // processes,
        )
        return cls(store, run_dir, own, processes)

    def fresh_id(self) -> str:
        """For a response that may be kept here."""
        place = f"{self._own}_" if self._processes > 1 else ""
        return f"{PREFIX}_{place}{uuid.uuid4().hex}"

    def put(self, owner: str, response: Mapping[str, Any], input_items: Sequence[bytes]) -> None:
        self._store.put(owner, response, input_items)

    async def get(self, owner: str, id: str) -> StoredResponse | None:
        """None for one that is not kept, or for somebody else.

        Raises:
            ApiError: 503; the process that keeps it does not answer.
        """
        answer = await self._ask(Question(owner, id))
        return answer if isinstance(answer, StoredResponse) else None

    async def delete(self, owner: str, id: str) -> bool:
        """Whether there was one of this owner.

        Raises:
            ApiError: as `get`.
        """
        return await self._ask(Question(owner, id, forget=True)) is True

    async def _ask(self, question: Question) -> Answer:
        named = KEEPER.fullmatch(question.id)
        keeper = int(named[1]) if named else self._own
        if keeper == self._own or keeper >= self._processes:
            return self._answer(question)
        try:
            async with asyncio.timeout(ANSWER_S):
                reader, writer = await asyncio.open_unix_connection(self._socket(keeper))
                with contextlib.closing(writer):
                    writer.write(msgspec.msgpack.encode(question))
                    writer.write_eof()
                    answer: Answer = msgspec.msgpack.decode(await reader.read(), type=Answer)
                    return answer
        except (ConnectionError, FileNotFoundError, msgspec.DecodeError):
            return None  # it has ended, or ends, and with it what it kept
        except OSError:  # a time-out is one too, and so are too many questions that wait
            raise _no_answer() from None

    def _answer(self, question: Question) -> Answer:
        if question.forget:
            return self._store.delete(question.owner, question.id)
        return self._store.get(question.owner, question.id)

    def _socket(self, place: int) -> str:
        return str(self._run_dir / f"responses-{place}.sock")

    @contextlib.asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        """While it lasts, other processes may ask this one."""
        if self._processes == 1:
            yield
            return
        server = await asyncio.start_unix_server(self._tell, self._socket(self._own))
        try:
            yield
        finally:
            server.close()

    async def _tell(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError):
            question = msgspec.msgpack.decode(await reader.read(), type=Question)
            writer.write(msgspec.msgpack.encode(self._answer(question)))
            await writer.drain()


def _no_answer() -> ApiError:
    return ApiError(
        503,
        "response_unavailable",
        "The process that keeps this response does not answer. Try again, or send the whole "
        "conversation instead.",
        retry_after_s=1,
    )
