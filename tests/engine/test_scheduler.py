from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest

from server.engine.blocks import BlockPool
from server.engine.plan import RunnerLimits
from server.engine.request import Matcher
from server.messages import FinishReason, Submit
from tests.engine.fake import CountingMatcher, FakeRunner, expected_tokens, limits, make_submit
from tests.engine.harness import PEER, Harness

A, B = b"aaaa", b"bbbb"


class Checked(Harness):
    """Over the fake runner, with the answers that must come out."""

    def __init__(
        self,
        room: RunnerLimits | None = None,
        *,
        prefix_cache: bool = True,
        speculate: bool = False,
    ) -> None:
        self.runner = FakeRunner(room or limits())
        self.expected: dict[int, list[int]] = {}
        super().__init__(self.runner, prefix_cache=prefix_cache, speculate=speculate)

    def submit(
        self,
        submit: Submit,
        pixels: Sequence[bytes] = (),
        matcher: Matcher | None = None,
        *,
        grammar_size: int | None = None,
    ) -> None:
        self.expected[submit.id] = expected_tokens(submit, pixels, grammar_size)
        if grammar_size is not None:
            matcher = CountingMatcher(grammar_size)
        super().submit(submit, pixels, matcher)

    def check_answers(self) -> None:
        for request_id, tokens in self.expected.items():
            assert self.tokens(request_id) == tokens
            assert self.finish(request_id) in (FinishReason.STOP, FinishReason.LENGTH)


def test_a_request_gets_its_tokens_and_gives_everything_back() -> None:
    harness = Checked()
    harness.submit(make_submit(1, range(9)))
    harness.run()
    harness.check_answers()
    assert harness.finish(1) is FinishReason.LENGTH


def test_a_stop_token_ends_the_answer_and_is_part_of_it() -> None:
    harness = Checked()
    free = expected_tokens(make_submit(1, range(9), max_tokens=6), [])
    harness.submit(make_submit(1, range(9), max_tokens=6, stop_ids=[free[2]]))
    harness.run()
    harness.check_answers()
    assert harness.tokens(1) == free[:3]
    assert harness.finish(1) is FinishReason.STOP


def test_a_prompt_longer_than_the_budget_is_cut_into_chunks() -> None:
    harness = Checked(limits(step_token_budget=5))
    harness.submit(make_submit(1, range(23)))
    harness.run()
    harness.check_answers()
    assert len(harness.runner.plans) >= 5 + 3


def test_decoding_goes_on_while_a_prompt_is_computed() -> None:
    harness = Checked(limits(step_token_budget=5))
    harness.submit(make_submit(1, range(3), max_tokens=12))
    harness.step()
    harness.submit(make_submit(2, range(20)))
    harness.step()
    plan = harness.runner.plans[-1]
    assert plan.rows is not None
    assert [row.count for row in plan.rows] == [1, 4]
    harness.run()
    harness.check_answers()


def test_a_steady_decode_step_names_no_rows() -> None:
    harness = Checked()
    for request_id in (1, 2):
        harness.submit(make_submit(request_id, range(3), max_tokens=9))
    harness.run()
    harness.check_answers()
    assert sum(plan.rows is None for plan in harness.runner.plans) >= 6


def test_no_row_is_wasted_on_a_request_that_ends_by_length() -> None:
    harness = Checked()
    harness.submit(make_submit(1, range(5), max_tokens=3))
    harness.run()
    assert len(harness.runner.plans) == 3


def test_the_youngest_is_preempted_and_comes_back() -> None:
    harness = Checked(limits(kv_blocks=8, max_model_len=32))
    for request_id in range(4):
        harness.submit(make_submit(request_id, range(request_id, request_id + 7), max_tokens=18))
    harness.run()
    harness.check_answers()
    assert harness.scheduler.gauges().preemptions_total > 0


def test_one_full_context_fits_alone() -> None:
    harness = Checked(limits(kv_blocks=4, max_model_len=16))
    for request_id in range(3):
        harness.submit(make_submit(request_id, range(10), max_tokens=6, seed=request_id))
    harness.run()
    harness.check_answers()


def test_equal_prompts_that_arrive_together_are_computed_once() -> None:
    harness = Checked(limits(step_token_budget=64))
    for request_id in range(4):
        harness.submit(make_submit(request_id, range(17), seed=request_id))
    harness.step()
    plan = harness.runner.plans[0]
    assert plan.rows is not None
    assert [row.count for row in plan.rows] == [17, 1, 1, 1]
    harness.run()
    harness.check_answers()
    assert [harness.deltas[i][0].cached_tokens for i in range(4)] == [0, 16, 16, 16]


def test_a_prefix_is_found_again_also_what_was_generated() -> None:
    harness = Checked()
    harness.submit(make_submit(1, range(10), max_tokens=8))
    harness.run()
    history = [*range(10), *harness.tokens(1), 3, 4]
    harness.submit(make_submit(2, history))
    harness.run()
    harness.check_answers()
    assert harness.deltas[2][0].cached_tokens == 16


def test_a_prefix_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lookups, match = 0, BlockPool.match

    def counting(self: BlockPool, keys: Iterable[bytes]) -> list[int]:
        nonlocal lookups
        lookups += 1
        return match(self, keys)

    monkeypatch.setattr(BlockPool, "match", counting)
    harness = Checked()
    for request_id in range(2):
        harness.submit(make_submit(request_id, range(10)))
        harness.run()
    harness.check_answers()
    assert lookups == 2


def test_without_the_prefix_cache_everything_is_computed() -> None:
    harness = Checked(prefix_cache=False)
    for request_id in range(2):
        harness.submit(make_submit(request_id, range(10)))
        harness.run()
    harness.check_answers()
    assert harness.scheduler.gauges().cached_tokens_total == 0


def test_a_fully_cached_prompt_still_computes_its_last_token() -> None:
    harness = Checked()
    for request_id in range(2):
        harness.submit(make_submit(request_id, range(8)))
        harness.run()
    harness.check_answers()
    assert harness.deltas[1][0].cached_tokens == 4


def test_the_same_picture_is_encoded_once_and_different_ones_never_share() -> None:
    harness = Checked(limits(step_token_budget=64))
    for request_id, pixels in enumerate((A, A, B)):
        prompt = make_submit(request_id, range(12), images=[(3, pixels)])
        harness.submit(prompt, [pixels])
    harness.run()
    harness.check_answers()
    gauges = harness.scheduler.gauges()
    assert gauges.images_encoded_total == 2
    assert harness.deltas[1][0].cached_tokens == 8
    assert harness.deltas[2][0].cached_tokens == 0
    assert expected_tokens(make_submit(0, range(12), images=[(3, A)]), [A]) != expected_tokens(
        make_submit(2, range(12), images=[(3, B)]), [B]
    )


def test_a_cached_prefix_needs_no_picture() -> None:
    harness = Checked(limits(image_slots=1))
    for request_id, pixels in enumerate((A, B, A)):
        harness.submit(make_submit(request_id, range(14), images=[(3, pixels)]), [pixels])
        harness.run()
    harness.check_answers()
    assert harness.scheduler.gauges().images_encoded_total == 2


def test_many_pictures_pass_through_one_slot() -> None:
    harness = Checked(limits(image_slots=1))
    pictures = [bytes([65 + index]) * 4 for index in range(5)]
    for request_id, order in enumerate((pictures, pictures[::-1])):
        images = [(1 + 8 * index, pixels) for index, pixels in enumerate(order)]
        harness.submit(make_submit(request_id, range(42), images=images), order)
    harness.run()
    harness.check_answers()


def test_a_picture_dearer_than_the_budget_is_encoded_alone() -> None:
    harness = Checked(limits(image_cost_tokens=100, step_token_budget=8))
    pictures = [A, B]
    harness.submit(make_submit(1, range(20), images=[(0, A), (7, B)]), pictures)
    harness.run()
    harness.check_answers()
    assert max(len(plan.encodes) for plan in harness.runner.plans) == 1


def test_pictures_beyond_the_budget_wait_for_the_next_step() -> None:
    harness = Checked(limits(image_cost_tokens=16, step_token_budget=30))
    pictures = [A, B, b"cccc"]
    images = [(7 * index, pixels) for index, pixels in enumerate(pictures)]
    harness.submit(make_submit(1, range(24), images=images), pictures)
    harness.run()
    harness.check_answers()
    assert [len(plan.encodes) for plan in harness.runner.plans[:3]] == [1, 1, 1]


def test_cancel_is_idempotent_and_answered_once() -> None:
    harness = Checked()
    harness.submit(make_submit(1, range(9), max_tokens=20))
    harness.submit(make_submit(2, range(4), max_tokens=20))
    harness.step()
    harness.step()
    for request_id in (1, 1, 2, 99):
        harness.cancel(request_id)
    harness.run()
    assert harness.finish(1) is harness.finish(2) is FinishReason.CANCELLED
    assert 99 not in harness.deltas
    assert harness.scheduler.gauges().kv_blocks_used == 0


def test_a_waiting_request_can_be_cancelled() -> None:
    harness = Checked(limits(slots=1))
    harness.submit(make_submit(1, range(9)))
    harness.submit(make_submit(2, range(9)))
    harness.step()
    harness.cancel(2)
    harness.run()
    assert harness.tokens(1) == harness.expected[1]
    assert harness.finish(2) is FinishReason.CANCELLED


def test_a_peer_that_is_gone_is_forgotten_without_a_word() -> None:
    harness = Checked()
    harness.submit(make_submit(1, range(9), max_tokens=20))
    harness.step()
    harness.scheduler.forget_peer(PEER)
    harness.run()
    assert 1 not in harness.deltas
    assert harness.scheduler.idle


def test_a_request_that_cannot_run_gets_one_error() -> None:
    harness = Checked()
    harness.submit(make_submit(1, [1] * 63, max_tokens=9))
    assert harness.finish(1) is FinishReason.ERROR
    assert "64 tokens" in (harness.deltas[1][0].error or "")
    assert harness.scheduler.idle


def test_an_id_in_use_is_refused_and_the_first_goes_on() -> None:
    harness = Checked()
    harness.submit(make_submit(1, range(9)))
    ((_, delta),) = harness.scheduler.submit(PEER, make_submit(1, range(3)), [])
    assert delta.finish is FinishReason.ERROR
    harness.run()
    harness.check_answers()


def test_equal_ids_of_two_peers_are_two_requests() -> None:
    harness = Checked()
    harness.submit(make_submit(1, range(9)))
    assert harness.scheduler.submit(b"api-1", make_submit(1, range(3)), []) == []
    harness.run()
    assert harness.scheduler.idle


def test_a_grammar_is_followed_beside_those_without_one() -> None:
    harness = Checked()
    harness.submit(make_submit(1, range(9), max_tokens=8), grammar_size=20)
    harness.submit(make_submit(2, range(5), max_tokens=9))
    harness.submit(make_submit(3, range(7), max_tokens=9), grammar_size=4)
    harness.run()
    harness.check_answers()
    assert len(harness.tokens(1)) == 8
    assert harness.finish(1) is FinishReason.LENGTH
    assert len(harness.tokens(3)) == 4
    assert harness.finish(3) is FinishReason.STOP


def test_a_grammar_that_fails_ends_its_request_alone() -> None:
    class Failing(CountingMatcher):
        @property
        def failed(self) -> bool:  # type: ignore[override]
            return self.accepted == 2

    harness = Checked()
    Harness.submit(harness, make_submit(1, range(9), max_tokens=8), matcher=Failing(9))
    harness.submit(make_submit(2, range(5), max_tokens=9))
    harness.run()
    harness.check_answers()
    assert harness.finish(1) is FinishReason.ERROR
    assert "grammar" in (harness.deltas[1][-1].error or "")


def test_lower_priorities_go_first_and_are_preempted_last() -> None:
    harness = Checked(limits(slots=1))
    for request_id, priority in enumerate((5, 0, -1, 0)):
        submit = make_submit(request_id, range(5), priority=priority, seed=request_id)
        harness.submit(submit)
    order = []
    while harness.step():
        order += [i for i in harness.deltas if i not in order]
    harness.check_answers()
    assert order == [2, 1, 3, 0]
