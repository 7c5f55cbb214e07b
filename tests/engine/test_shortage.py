"""Steps that run out of memory: whoever caused it fails, the others get their tokens."""

from __future__ import annotations

import pytest

from server.engine.shortage import OUT_OF_MEMORY
from server.messages import FinishReason
from tests.engine.fake import limits, make_submit
from tests.engine.test_scheduler import Checked

A = b"aaaa"


def failing(step: int, *, encoding: bool = False) -> Checked:
    harness = Checked(limits(step_token_budget=32))
    harness.runner.fails_at[step] = encoding
    return harness


def check_only_failed(harness: Checked, failed: int) -> None:
    (*_, end) = harness.deltas[failed]
    assert (end.finish, end.error) == (FinishReason.ERROR, OUT_OF_MEMORY)
    assert harness.expected.pop(failed)[: len(harness.tokens(failed))] == harness.tokens(failed)
    harness.check_answers()


def test_prompts_fail_and_those_that_decode_go_on() -> None:
    harness = failing(step=3)
    harness.submit(make_submit(1, range(9), max_tokens=12))
    for _ in range(3):
        harness.step()
    harness.submit(make_submit(2, range(20, 29)))
    harness.run()
    check_only_failed(harness, 2)


def test_pictures_fail_where_they_were_encoded_and_prompts_go_on() -> None:
    harness = failing(step=0, encoding=True)
    harness.submit(make_submit(1, range(5)))
    harness.submit(make_submit(2, range(9), images=[(2, A)]), [A])
    harness.run()
    check_only_failed(harness, 2)
    harness.submit(make_submit(3, range(9), images=[(2, A)]), [A])
    harness.run()
    harness.check_answers()


def test_the_last_in_rank_fails_where_all_decode() -> None:
    harness = failing(step=4)
    for request_id in (1, 2, 3):
        harness.submit(make_submit(request_id, range(request_id + 3), max_tokens=9))
    harness.run()
    check_only_failed(harness, 3)


def test_what_those_steps_should_have_computed_is_not_found_in_the_cache() -> None:
    harness = failing(step=0)
    harness.submit(make_submit(1, range(12)))
    harness.run()
    check_only_failed(harness, 1)
    harness.submit(make_submit(2, range(12)))
    harness.run()
    harness.check_answers()
    assert harness.deltas[2][0].cached_tokens == 0


@pytest.mark.parametrize("encoding", [False, True])
def test_nobody_fails_for_a_request_that_has_ended(encoding: bool) -> None:
    harness = failing(step=3, encoding=encoding)
    for request_id in (1, 2):
        harness.submit(make_submit(request_id, range(request_id + 3), max_tokens=9))
    for _ in range(3):
        harness.step()
    harness.submit(make_submit(3, range(20, 29), images=[(2, A)]), [A])
    harness.step()
    harness.cancel(3)
    harness.run()
    assert harness.finish(3) is FinishReason.CANCELLED
    del harness.expected[3]
    harness.check_answers()


def test_a_request_that_has_ended_is_not_told_again() -> None:
    harness = failing(step=0)
    harness.submit(make_submit(1, range(9)))
    harness.submit(make_submit(2, range(20, 25)))
    harness.scheduler.schedule()
    harness.cancel(1)
    deltas = harness.scheduler.start_over(encoding=False)
    assert [delta.id for _, delta in deltas] == [2]
    harness.scheduler.check_integrity()
    assert harness.scheduler.idle
