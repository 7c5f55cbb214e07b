from __future__ import annotations

from typing import Any

import msgspec
import pytest

from server.errors import StartupError
from server.messages import FinishReason, Submit
from server.model.spec import ModelSpec
from server.runner.null import NullRunner, null_limits
from server.settings import Settings
from tests.engine.fake import CountingMatcher, limits, make_submit
from tests.engine.harness import Harness
from tests.golden import CHECKPOINT

SCRIPT = (5, 9, 13)


def harness(**changes: int) -> Harness:
    return Harness(NullRunner(limits(**changes), SCRIPT))


def asked(submit: Submit, **sampling: Any) -> Submit:
    return msgspec.structs.replace(
        submit, sampling=msgspec.structs.replace(submit.sampling, **sampling)
    )


def test_the_script_is_repeated_as_far_as_was_asked() -> None:
    run = harness()
    run.submit(make_submit(1, range(20), max_tokens=7))
    run.submit(make_submit(2, [3], max_tokens=1))
    run.run()
    assert run.tokens(1) == [5, 9, 13, 5, 9, 13, 5]
    assert run.tokens(2) == [5]
    assert run.finish(1) is run.finish(2) is FinishReason.LENGTH


def test_pictures_need_no_tower() -> None:
    run = harness()
    run.submit(make_submit(1, range(10), images=[(2, b"abcd")]), [b"abcd"])
    run.run()
    assert run.tokens(1) == [5, 9, 13, 5]


def test_preemption_changes_nothing() -> None:
    run = harness(kv_blocks=8)
    for request_id in range(1, 5):
        run.submit(make_submit(request_id, [request_id] * 6, max_tokens=12))
    run.run()
    assert run.scheduler.gauges().preemptions_total > 0
    assert all(run.tokens(request_id) == [*SCRIPT * 4] for request_id in range(1, 5))


def test_whoever_takes_a_slot_begins_anew() -> None:
    run = harness()
    for request_id in (1, 2):  # all but a token of the second's prompt is cached
        run.submit(make_submit(request_id, range(9), max_tokens=4))
        run.run()
    assert run.tokens(1) == run.tokens(2) == [5, 9, 13, 5]


def test_guesses_are_recited_at_once() -> None:
    submit = asked(make_submit(1, [3], max_tokens=40), logprobs=1)
    plain, guessing = (
        Harness(NullRunner(limits(), SCRIPT), speculate=speculate) for speculate in (False, True)
    )
    for run in (plain, guessing):
        run.submit(submit)
        run.run()
    assert guessing.tokens(1) == plain.tokens(1)
    assert [d.logprobs for d in guessing.deltas[1]] == [d.logprobs for d in plain.deltas[1]]
    assert guessing.scheduler.gauges().confirmed_tokens_total > 20


def test_a_cancelled_request_ends() -> None:
    run = harness()
    run.submit(make_submit(1, [3], max_tokens=40))
    run.step()
    run.step()
    run.cancel(1)
    run.run()
    assert run.finish(1) is FinishReason.CANCELLED
    assert len(run.tokens(1)) < 40


def test_grammars_are_followed() -> None:
    run = harness()
    run.submit(make_submit(1, [3], max_tokens=9), matcher=CountingMatcher(5))
    run.run()
    # The script's word where the grammar takes it, else the first that it takes.
    assert run.tokens(1) == [0, 1, 2, 0, 1]
    assert run.finish(1) is FinishReason.STOP


def test_log_probabilities_come_where_they_were_asked_for() -> None:
    run = harness()
    plain = make_submit(1, [4, 6, 8], max_tokens=2)
    run.submit(msgspec.structs.replace(asked(plain, logprobs=2), prompt_logprobs=0))
    run.submit(make_submit(2, [3], max_tokens=2))
    run.run()
    first, second = run.deltas[1]
    assert first.logprobs is not None and second.logprobs is not None
    assert [one.top_ids for one in first.logprobs + second.logprobs] == [[5, 0], [9, 0]]
    assert first.prompt_logprobs is not None and len(first.prompt_logprobs) == 2
    assert all(delta.logprobs is None for delta in run.deltas[2])


def test_a_step_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("server.runner.null.time.monotonic", lambda: 100.0)
    monkeypatch.setattr("server.runner.null.time.sleep", slept.append)
    run = Harness(NullRunner(limits(), SCRIPT, step_s=0.5))
    run.submit(make_submit(1, [3], max_tokens=3))
    run.run()
    # One after another: the second was launched before the first was over.
    assert slept == [0.5, 1.0, 1.5]


def test_there_is_room_for_all_that_may_run() -> None:
    spec = ModelSpec.load(CHECKPOINT)
    room = null_limits(Settings(max_num_seqs=256), spec)
    assert room.slots == 256
    assert room.kv_blocks * room.kv_block_size >= 256 * room.max_model_len
    assert room.vocab_size == spec.text.vocab_size


def test_several_ranks_have_nothing_to_share() -> None:
    with pytest.raises(StartupError, match="one rank"):
        null_limits(Settings(tensor_parallel_size=2), ModelSpec.load(CHECKPOINT))
