"""From prepared submissions to a response, plain or streamed, whatever shape it has.

Whatever fails before the first byte is a real HTTP error; later the reply says how a broken stream
ends. However a request ends, its choices are closed in the engine exactly once, and one line is
logged.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from server.api.access import ChatRecord
from server.api.answer import Answer
from server.api.engine_request import isolated
from server.api.event_stream import EventStream
from server.api.feed import Feed
from server.api.incoming import read_json, until_disconnect
from server.api.parameters import Table
from server.api.patience import Patience, queue_timeout, request_timeout, too_busy
from server.api.reply import Reply
from server.api.responses import json_response
from server.api.service import Service
from server.api.submission import Submission
from server.api.tracing import caller_of
from server.errors import ApiError
from server.messages import Submit


async def handle(
    service: Service,
    request: Request,
    kind: str,
    respond: Callable[[dict[str, Any], ChatRecord], Coroutine[Any, Any, Response]],
) -> Response:
    """Answers a request that the client may give up; logs it when it fails before `deliver` does.

    Args:
        kind: how the log calls such requests.
    """
    caller = caller_of(request.headers)
    patience = Patience.read(request.headers, service.settings)
    key = request.state.key
    record = ChatRecord(
        request.state.request_id,
        kind,
        service.metrics,
        service.tracer,
        caller,
        key,
        patience,
    )
    try:
        _count(service, request)
        _check_wait(service, patience)
        body = await read_json(request, service.bodies)
        record.read(request.headers.get("content-length", ""))
        return await until_disconnect(request.receive, respond(body, record))
    except ApiError as failure:
        record.failure = failure.code
        record.write(failure.status)
        raise
    except ClientDisconnect:
        record.write(499)
        raise


async def read_counted(service: Service, request: Request) -> dict[str, Any]:
    """The body of a request that asks nothing of the engine, and counts for its key all the same.

    Raises:
        ApiError: 429, or as `read_json`.
    """
    _count(service, request)
    return await read_json(request, service.bodies)


def _count(service: Service, request: Request) -> None:
    """Counts a request for its key until it has ended."""
    key = request.state.key
    service.quotas.begin(key)
    request.state.at_end.callback(service.quotas.end, key)


def _check_wait(service: Service, patience: Patience) -> None:
    """Refuses at once what could only be refused later."""
    wait_s = service.client.expected_wait_s
    if wait_s > patience.first_token_s:
        raise too_busy(wait_s, patience.first_token_s)


def ignored_header(table: Table, body: Mapping[str, Any], *others: str) -> dict[str, str]:
    """The header that names fields which were sent and have no effect.

    Args:
        others: that have none beside, or without, another field.
    """
    ignored = [*table.ignored(body), *others]
    return {"x-ignored-params": ",".join(ignored)} if ignored else {}


@dataclass(frozen=True, slots=True)
class Work:
    """What the engine shall do for a request, and how that is answered."""

    submits: Sequence[Submit]
    answer: Answer
    """Empty, with a choice for each of `submits`."""
    reply: Reply
    """Over `answer`."""
    stream: bool
    headers: Mapping[str, str]
    """Of the response."""
    pictures: Sequence[bytes] = ()


async def deliver(service: Service, work: Work, record: ChatRecord) -> Response:
    """Lets the engine work and answers.

    Raises:
        ApiError: the engine refused or failed before the first byte.
    """
    answer, reply, headers = work.answer, work.reply, work.headers
    service.quotas.take_prompt(record.key, answer.prompt_tokens)
    record.answer = answer
    tenant, submits = record.key.name.encode(), work.submits
    if service.settings.isolate_cache_by_key:
        submits = [isolated(submit, tenant) for submit in submits]
    try:
        submission = service.client.submit(submits, work.pictures, tenant)
    except ApiError:
        service.quotas.give_back(record.key, answer.prompt_tokens)
        raise
    record.submitted(len(work.pictures))
    with contextlib.ExitStack() as owner:
        owner.callback(lambda: service.quotas.take_answer(record.key, answer.output_tokens))
        owner.enter_context(submission)
        _limit_time(submission, record.patience, owner, stream=work.stream)
        if not work.stream:
            async for deltas in submission:
                for index, delta in deltas:
                    record.take(index, delta)
                    answer.take(index, delta, submission.cancel)
            record.write(200)
            return json_response(reply.body(), headers=headers)
        keep_alive_s = service.settings.keep_alive_comment_s
        await _first_news(submission, keep_alive_s)
        owner.callback(record.write, 200)
        feed = Feed(submission, answer, reply, record)
        # From here on the stream closes the submission and writes the record.
        return EventStream(feed, owner.pop_all().close, keep_alive_s, headers)


def _limit_time(
    submission: Submission, patience: Patience, owner: contextlib.ExitStack, *, stream: bool
) -> None:
    """Fails the submission when nobody waits for it any more."""
    loop, first_s, total_s = (
        asyncio.get_running_loop(),
        patience.first_token_s,
        patience.total_s(stream=stream),
    )
    first = loop.call_later(first_s, submission.fail_unless_begun, queue_timeout(first_s))
    total = loop.call_later(total_s, submission.fail, request_timeout(total_s))
    owner.callback(first.cancel)
    owner.callback(total.cancel)


async def _first_news(submission: Submission, patience_s: float) -> None:
    """Waits for the engine's first word, so that an engine which fails until then is a plain HTTP
    error: clients retry those by themselves. A silent stream has to begin at some time."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(submission.begun(), patience_s)
