"""The API process's side of the engine: one connection, and the open choices of every request.

A background task connects, greets, hands what the engine says to the submission it belongs to, and
notices when the engine goes away: then every open submission fails exactly once, and the next
engine is awaited. Ids are never used twice, so news of a forgotten choice can only be dropped.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path

import msgspec

from server import errors
from server.api.open_choices import OpenChoices
from server.api.quarantine import Quarantine
from server.api.submission import Submission
from server.api.waiting_tokens import WaitingTokens
from server.board import Board
from server.errors import ApiError
from server.in_flight import fingerprint, left_in_flight
from server.ipc import ApiEndpoint
from server.limits import Limits
from server.messages import (
    Cancel,
    FinishReason,
    Gauges,
    Hello,
    Outputs,
    Ready,
    StepReport,
    Submit,
    ToEngine,
)

log = logging.getLogger(__name__)

RETRY_S = 1.0
"""Pause after a connection that failed in a way nobody foresaw, such as no free descriptors."""


class EngineState(StrEnum):
    """What this process knows of the engine."""

    LOADING = "loading"
    """No engine has been ready since this process started."""
    READY = "ready"
    LOST = "lost"
    """An engine was ready and went away; the next one is awaited."""
    DRAINING = "draining"
    """This process is shutting down."""


class EngineClient:
    """All open submissions of this process, and the connection they go over.

    Args:
        limits: of open choices, beyond which `submit` answers 429, and of deaths of the engine.
        restarts: of processes of the daemon, before this one was started.
        board: that of the API processes; None for one that is alone.
    """

    def __init__(
        self,
        endpoint: ApiEndpoint,
        limits: Limits,
        restarts: int = 0,
        board: Board | None = None,
    ) -> None:
        board = board or Board()
        self.ready: Ready | None = None
        self.greeted = asyncio.Event()
        """Set once an engine has been ready."""
        self.latest = Gauges()
        self._restarts = board.tally()
        self._restarts.own = restarts
        self.on_step: Callable[[StepReport], None] | None = None
        self._endpoint = endpoint
        self._max_open = limits.max_waiting_requests
        self._waiting = WaitingTokens(limits.max_waiting_prompt_tokens, board.tally())
        self._quarantine_s = limits.quarantine_s
        self._quarantine = Quarantine(limits.quarantine_deaths, limits.quarantine_s)
        self._next_id = itertools.count(1)
        self._open = OpenChoices(board.tally())
        self._outbox: asyncio.Queue[tuple[ToEngine, Sequence[bytes]]] = asyncio.Queue()
        self._had_engine = False
        self._leaving = False
        self._draining = False
        self._task: asyncio.Task[None] | None = None

    @property
    def state(self) -> EngineState:
        if self.leaving():
            return EngineState.DRAINING
        if self.ready is not None:
            return EngineState.READY
        return EngineState.LOST if self._had_engine else EngineState.LOADING

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="engine client")

    async def stop(self) -> None:
        self.drain()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def run_dir(self) -> Path:
        return self._endpoint.run_dir

    @property
    def restarts(self) -> int:
        """Of the daemon's processes, as far as any API process knows."""
        return self._restarts.largest

    @property
    def expected_wait_s(self) -> float:
        """How long a new request would wait for those before it; 0 where nothing tells."""
        return self._open.expected_wait_s(self.ready.max_num_seqs if self.ready else 0)

    def leaving(self) -> bool:
        """This process is about to end."""
        return self._leaving or self._draining

    def leave(self) -> None:
        """Nobody should send anything new here, but what comes is still answered."""
        self._leaving = True

    def drain(self) -> None:
        """Ends every open submission and refuses new ones, because the server shuts down."""
        self._draining = True
        for submission in self._open.submissions:
            submission.fail(errors.shutting_down())

    def admit(self, choices: int) -> Ready:
        """What the engine can take, if it takes `choices` more now.

        Raises:
            ApiError: 503 without an engine or while shutting down, 429 when too many are open.
        """
        if self._draining:
            raise errors.shutting_down()
        if self.ready is None:
            raise errors.model_loading()
        if (held := self._open.everywhere) + choices > self._max_open:
            raise ApiError(
                429,
                "rate_limit_exceeded",
                f"The server holds {held} unfinished choices and takes "
                f"{self._max_open} at most. Try again later.",
                retry_after_s=self._open.retry_after_s(),
            )
        return self.ready

    def submit(
        self, requests: Sequence[Submit], pictures: Sequence[bytes], tenant: bytes = b""
    ) -> Submission:
        """Opens one choice per entry of `requests`, whose ids are replaced by fresh ones; the
        pictures go with each of them. The caller closes the submission.

        Args:
            tenant: who shares the engine with others.

        Raises:
            ApiError: as `admit`; 400 for an input that the engine has died of.
        """
        self.admit(len(requests))
        self._waiting.check(requests, self._open.retry_after_s())
        fingerprints = frozenset(map(fingerprint, requests))
        if any(map(self._quarantine.holds, fingerprints)):
            raise errors.quarantined(self._quarantine_s)
        ids = [next(self._next_id) for _ in requests]
        submission = Submission(ids, self.cancel, fingerprints)
        self._waiting.add(dict(zip(ids, requests, strict=True)))
        self._open.add(ids, submission)
        for id, request in zip(ids, requests, strict=True):
            self._outbox.put_nowait(
                (msgspec.structs.replace(request, id=id, tenant=tenant), pictures)
            )
        return submission

    def cancel(self, id: int) -> None:
        """Tells the engine to forget a choice, unless it has ended or its engine has."""
        self._waiting.end(id)
        if self._open.forget(id):
            self._outbox.put_nowait((Cancel(id), ()))

    async def _run(self) -> None:
        first = True
        while True:
            try:
                if not first:
                    self._endpoint.reconnect()
                first = False
                await self._endpoint.connected()
                await self._converse()
            except Exception:
                log.exception("the connection to the engine failed")
                await asyncio.sleep(RETRY_S)

    async def _converse(self) -> None:
        """Speaks with one engine until it goes away."""
        self._outbox = asyncio.Queue()
        self._outbox.put_nowait((Hello(), ()))
        end = asyncio.create_task(self._endpoint.lost())
        parts = [end, *map(asyncio.create_task, (self._send_all(), self._receive_all()))]
        died = False
        try:
            ended, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            died = end in ended
            for part in ended:
                part.result()
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
            self._lost(left_in_flight(self._endpoint.run_dir) if died else frozenset())

    async def _send_all(self) -> None:
        while True:
            message, pictures = await self._outbox.get()
            await self._endpoint.send(message, pictures)

    async def _receive_all(self) -> None:
        while True:
            stirred: set[Submission] = set()
            for message in await self._endpoint.receive():
                if isinstance(message, Ready):
                    self.ready, self._had_engine = message, True
                    self._restarts.own = max(self._restarts.own, message.restarts)
                    self.greeted.set()
                    log.info("engine ready: %s on %s", message.dtype, message.device)
                else:
                    self._dispatch(message, stirred)
            for submission in stirred:
                submission.tell()
            # Receiving what has already arrived does not yield; all others must get their turn.
            await asyncio.sleep(0)

    def _dispatch(self, outputs: Outputs, stirred: set[Submission]) -> None:
        """Hands deltas to their submissions and notes which those are."""
        self.latest = outputs.gauges
        if outputs.step is not None and self.on_step is not None:
            self.on_step(outputs.step)
        for delta in outputs.deltas:
            self._waiting.end(delta.id)
            submission = self._open.get(delta.id)
            if submission is None:
                continue  # cancelled here while the engine was still saying something about it
            if delta.finish is not None:
                self._open.end(delta.id)
            if delta.finish is FinishReason.ERROR:
                message = delta.error or "The engine could not finish this request."
                # It would fail again, so clients should not try by themselves.
                headers = {"x-should-retry": "false"}
                submission.fail(ApiError(500, "engine_error", message, headers=headers))
            elif delta.finish is FinishReason.CANCELLED:
                submission.fail(errors.shutting_down())  # nobody else cancels what we have open
            else:
                submission.push(delta)
                stirred.add(submission)

    def _lost(self, suspects: frozenset[bytes]) -> None:
        """Fails whatever is open.

        Args:
            suspects: fingerprints of the inputs that the engine died with.
        """
        if self.ready is not None and not self._draining:
            log.warning(
                "the engine went away with %d choices open, %d inputs in its steps",
                len(self._open),
                len(suspects),
            )
        self.ready, self.latest = None, Gauges()
        self._quarantine.count_death(suspects)
        submissions = self._open.submissions
        self._open.clear()
        self._waiting.clear()
        for submission in submissions:
            suspect = not suspects.isdisjoint(submission.fingerprints)
            submission.fail(errors.engine_died() if suspect else errors.engine_restarted())
