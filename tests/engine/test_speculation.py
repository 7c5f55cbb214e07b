from __future__ import annotations

from array import array

import pytest

from server.engine.draft import Draft
from server.engine.launched import Launched, LaunchedRow
from server.engine.request import Request
from server.engine.residency import Residency
from server.engine.speculation import GUESSES, PAUSE_MAX, ROWS, STEP_TOKENS, look_up
from server.engine.totals import Totals
from tests.engine.fake import PARROT, VOCAB_SIZE, limits, make_submit
from tests.engine.harness import PEER
from tests.engine.test_scheduler import Checked

ROOM = limits(slots=12, kv_blocks=200, max_model_len=200, step_token_budget=64)
REPETITIVE = [1, 2, 3, 4, 5, 6, 7, 8] * 3


def guessing(harness: Checked) -> list[list[list[int]]]:
    """Guesses of each row, of the plans that have any."""
    plans = [[row.guesses for row in plan.rows or []] for plan in harness.runner.plans]
    return [guesses for guesses in plans if any(guesses)]


@pytest.mark.parametrize(
    ("tokens", "guesses"),
    [
        pytest.param([5, 6, 7, 8, 9, 5, 6], [7, 8, 9], id="what followed"),
        pytest.param([1, 2, 3, 9, 1, 2, 4, 1, 2], [4, 1, 2], id="the last time"),
        pytest.param([7, 1, 2, 3, 0, 0, 2, 3, 9, 1, 2, 3], [0, 0, 2], id="the longest run"),
        pytest.param([1, 4, 5, 4, 5], [4, 5, 4], id="going on as before"),
        pytest.param([8, 8, 8, 8], [8, 8, 8], id="one token again and again"),
        pytest.param([1, 2, 3, 4, 5], [], id="nothing is repeated"),
        pytest.param([1, 5, 2, 5], [], id="one token is no hint"),
        pytest.param([3], [], id="one token"),
    ],
)
def test_what_followed_before_is_guessed(tokens: list[int], guesses: list[int]) -> None:
    assert look_up(array("i", tokens), 3) == guesses


def test_tokens_are_compared_not_bytes() -> None:
    # The bytes of 1, 2 stand in the middle of the first two tokens.
    shifted = [1 << 16, 2 << 16, 0]
    assert look_up(array("i", [*shifted, 9, 1, 2]), 3) == []
    assert look_up(array("i", [1, 2, *shifted, 9, 1, 2]), 3) == shifted


def test_an_answer_that_repeats_takes_fewer_steps() -> None:
    steps = []
    for speculate in (False, True):
        harness = Checked(ROOM, speculate=speculate)
        harness.submit(make_submit(1, REPETITIVE, max_tokens=60, seed=PARROT))
        harness.run()
        harness.check_answers()
        steps.append(len(harness.runner.plans))
    gauges = harness.scheduler.gauges()
    assert gauges.generated_tokens_total == 60
    assert 0 < gauges.confirmed_tokens_total < gauges.guessed_tokens_total
    assert steps[1] == steps[0] - gauges.confirmed_tokens_total, "each right guess saves a step"
    assert steps[1] < 0.7 * steps[0]


def test_nothing_is_launched_behind_guesses() -> None:
    harness = Checked(ROOM, speculate=True)
    for request_id in range(3):
        harness.submit(make_submit(request_id, REPETITIVE, max_tokens=40, seed=PARROT))
    harness.run()
    harness.check_answers()
    assert any(sum(map(bool, rows)) > 1 for rows in guessing(harness)), "all guess in one step"


def test_without_repetitions_steps_overlap_as_ever() -> None:
    harness = Checked(ROOM, speculate=True)
    harness.submit(make_submit(1, range(30), max_tokens=6, seed=1))
    for _ in range(4):
        harness.step()
        assert len(harness.runner.plans) - 1 > harness.runner.read_back or not guessing(harness)
    harness.run()
    harness.check_answers()


def test_the_share_of_a_row() -> None:
    harness = Checked(ROOM, speculate=True)
    share = harness.scheduler._speculation.share
    assert share(1, 100) == share(STEP_TOKENS // (1 + GUESSES), 100) == GUESSES
    assert share(ROWS, 100) == STEP_TOKENS // ROWS - 1 > 0
    assert share(ROWS + 1, 100) == share(0, 100) == 0
    assert share(4, 9) == 1
    assert share(4, 3) == 0


def test_above_a_number_of_rows_nobody_guesses() -> None:
    room = limits(slots=12, kv_blocks=200, max_model_len=200, step_token_budget=400)
    harness = Checked(room, speculate=True)
    for request_id in range(ROWS + 1):
        prompt = [request_id + 10, *REPETITIVE]
        harness.submit(make_submit(request_id, prompt, max_tokens=30, seed=PARROT))
    harness.run()
    harness.check_answers()
    assert not guessing(harness)


@pytest.mark.parametrize(("max_tokens", "guesses"), [(1, 0), (3, 0), (4, 1), (6, 3)])
def test_guesses_end_where_the_answer_does(max_tokens: int, guesses: int) -> None:
    harness = Checked(ROOM, speculate=True)
    harness.submit(make_submit(1, [3] * 12, max_tokens=max_tokens, seed=PARROT))
    harness.run()
    harness.check_answers()
    rows = [len(row) for rows in guessing(harness) for row in rows]
    assert max(rows, default=0) == guesses


def test_a_stop_token_among_right_guesses_ends_the_answer() -> None:
    for stop in range(0, VOCAB_SIZE, 4):
        harness = Checked(ROOM, speculate=True)
        harness.submit(make_submit(1, REPETITIVE, max_tokens=60, seed=PARROT, stop_ids=[stop]))
        harness.run()
        harness.check_answers()


def test_whoever_has_a_grammar_does_not_guess() -> None:
    prompt = [3, 4, 5, 6, 7, 8] * 4  # which the grammar allows to go on
    harness = Checked(ROOM, speculate=True)
    harness.submit(make_submit(1, prompt, max_tokens=30, seed=PARROT), grammar_size=25)
    harness.run()
    harness.check_answers()
    assert not guessing(harness)
    harness.submit(make_submit(2, prompt, max_tokens=40, seed=PARROT), grammar_size=35)
    harness.submit(make_submit(3, prompt, max_tokens=40, seed=PARROT))
    harness.run()
    harness.check_answers()
    assert guessing(harness), "and keeps nobody from it"


def test_whose_guesses_are_wrong_pauses_for_longer_and_longer() -> None:
    request = Request.from_submit(PEER, make_submit(1, [1, 2] * 5, max_tokens=500), [])
    request.tokens.extend([1, 2])
    speculation = Checked(ROOM, speculate=True).scheduler._speculation
    launched = Launched()
    launched.add(0, [LaunchedRow(request, end=0, samples=True, prompt=False, encodes=False)])
    row = LaunchedRow(request, end=0, samples=True, prompt=False, encodes=False, guesses=[1])
    pauses = []
    for confirmed in (0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0):
        speculation.learn(row, confirmed)
        pauses.append(0)
        request.scheduled = len(request.tokens) - 1
        while not speculation.waits(launched, [request]):
            request.tokens.extend([1, 2])
            request.scheduled = len(request.tokens) - 1
            pauses[-1] += 2
    assert pauses == [2, 4, 8, 0, 2, 4, 8, 16, 32, PAUSE_MAX, PAUSE_MAX]


@pytest.mark.parametrize(("spare_blocks", "reached"), [(2, 12), (3, 8), (4, 4), (9, 4)])
def test_guesses_leave_blocks_for_others(spare_blocks: int, reached: int) -> None:
    residency = Residency(limits(kv_blocks=6), Totals(), prefix_cache=False)
    request = Request.from_submit(PEER, make_submit(1, range(5)), [])
    assert residency.enter(request, 0, draft := Draft(100))
    request.scheduled = 4  # of the 8 positions in two blocks
    assert residency.reach(request, 12, spare_blocks, draft) == reached
    assert residency.blocks.available == max(4 - (reached - 4) // 4, 0)


def test_with_few_blocks_there_are_preemptions_and_guesses() -> None:
    harness = Checked(limits(kv_blocks=13, max_model_len=48, step_token_budget=64), speculate=True)
    for request_id in range(4):
        prompt = [request_id + 10, *REPETITIVE[:9]]
        harness.submit(make_submit(request_id, prompt, max_tokens=30, seed=PARROT))
    harness.run()
    harness.check_answers()
    assert guessing(harness)
    assert harness.scheduler.gauges().preemptions_total > 0


def test_what_guesses_computed_is_found_in_the_prefix_cache() -> None:
    harness = Checked(ROOM, speculate=True)
    harness.submit(make_submit(1, REPETITIVE, max_tokens=40, seed=PARROT))
    harness.run()
    history = [*REPETITIVE, *harness.tokens(1), 3]
    harness.submit(make_submit(2, history, seed=PARROT))
    harness.run()
    harness.check_answers()
    assert harness.deltas[2][0].cached_tokens == (len(history) - 1 - 1) // 4 * 4


def test_no_memory_for_a_step_with_guesses() -> None:
    harness = Checked(ROOM, speculate=True)
    for request_id in (1, 2):
        harness.submit(make_submit(request_id, REPETITIVE, max_tokens=40, seed=PARROT))
    while not guessing(harness):
        harness.step()
    harness.runner.fails_at[len(harness.runner.plans)] = False
    harness.run()
    assert harness.tokens(1) == harness.expected[1]
    assert harness.tokens(2) == harness.expected[2][: len(harness.tokens(2))]


def test_a_request_that_is_set_back_before_its_guesses_were_confirmed() -> None:
    for steps in range(4, 12):
        harness = Checked(ROOM, speculate=True)
        harness.submit(make_submit(1, REPETITIVE, max_tokens=60, seed=PARROT))
        for _ in range(steps):
            harness.step()
        request = harness.scheduler._running[0]
        confirmed, idle = request.confirmed, not request.in_flight
        harness.scheduler._preempt(request)
        harness.submit(make_submit(2, range(9), priority=-1))  # takes the slot
        harness.run()
        harness.check_answers()
        if confirmed and idle:
            return
    raise AssertionError("no step left anything to confirm")
