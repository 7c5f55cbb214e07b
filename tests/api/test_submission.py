from __future__ import annotations

import asyncio

import pytest

from server.api.submission import Submission
from server.errors import ApiError, engine_restarted
from server.messages import Delta, FinishReason


def new_submission(choices: int = 1) -> tuple[Submission, list[int]]:
    """A submission with ids 1, 2, ... and the list of ids that it cancels."""
    cancelled: list[int] = []
    return Submission(list(range(1, choices + 1)), cancelled.append), cancelled


async def read_all(submission: Submission) -> list[tuple[int, Delta]]:
    return [item async for arrived in submission for item in arrived]


def test_yields_deltas_by_choice_and_ends_with_the_last_terminal_one() -> None:
    async def run() -> None:
        submission, cancelled = new_submission(2)
        deltas = [
            Delta(2, [5]),
            Delta(1, [6], FinishReason.STOP),
            Delta(2, [7], FinishReason.LENGTH),
        ]
        for delta in deltas:
            submission.push(delta)
        assert await read_all(submission) == [(1, deltas[0]), (0, deltas[1]), (1, deltas[2])]
        submission.close()
        assert cancelled == []

    asyncio.run(run())


def test_what_arrived_before_a_failure_is_delivered_first() -> None:
    async def run() -> None:
        submission, _ = new_submission()
        submission.push(Delta(1, [5]))
        failure = engine_restarted()
        submission.fail(failure)
        assert await anext(submission) == [(0, Delta(1, [5]))]
        with pytest.raises(ApiError) as caught:
            await anext(submission)
        assert caught.value is failure

    asyncio.run(run())


def test_only_the_first_failure_counts_and_nothing_arrives_after_it() -> None:
    async def run() -> None:
        submission, _ = new_submission()
        failure = engine_restarted()
        submission.fail(failure)
        submission.fail(ApiError(500, "other", "Other."))
        submission.push(Delta(1, [5]))
        with pytest.raises(ApiError) as caught:
            await anext(submission)
        assert caught.value is failure

    asyncio.run(run())


def test_closing_cancels_what_is_open_and_only_once() -> None:
    async def run() -> None:
        submission, cancelled = new_submission(3)
        submission.push(Delta(2, [], FinishReason.STOP))
        with submission:
            pass
        submission.close()
        assert cancelled == [1, 3]

    asyncio.run(run())


def test_a_cancelled_choice_does_not_hold_up_the_end() -> None:
    async def run() -> None:
        submission, cancelled = new_submission(2)
        submission.cancel(0)
        submission.push(Delta(2, [5], FinishReason.STOP))
        assert [index for index, _ in await read_all(submission)] == [1]
        assert cancelled == [1]

    asyncio.run(run())


def test_begun_returns_with_the_first_delta_and_keeps_it() -> None:
    async def run() -> None:
        submission, _ = new_submission()
        waiting = asyncio.create_task(submission.begun())
        await asyncio.sleep(0)
        assert not waiting.done()
        submission.push(Delta(1, [5], FinishReason.STOP))
        submission.tell()
        await waiting
        assert len(await read_all(submission)) == 1

    asyncio.run(run())


def test_a_listener_hears_of_news_and_of_a_failure_instead() -> None:
    async def run() -> None:
        submission, _ = new_submission()
        heard: list[list[int]] = []
        submission.listener = lambda: heard.append(
            [i for _, d in submission.take() for i in d.token_ids]
        )
        submission.push(Delta(1, [5]))
        submission.push(Delta(1, [6]))
        assert not heard
        submission.tell()
        assert not submission.closing
        submission.fail(engine_restarted())
        assert heard == [[5, 6], []]
        assert submission.closing

    asyncio.run(run())


def test_begun_raises_a_failure_that_comes_first() -> None:
    async def run() -> None:
        submission, _ = new_submission()
        submission.fail(engine_restarted())
        with pytest.raises(ApiError):
            await submission.begun()

    asyncio.run(run())
