"""A tenant with one request beside a tenant with hundreds."""

from __future__ import annotations

import msgspec
import pytest

from server.engine.fairness import FORGET_AT, Fairness
from server.messages import Submit
from tests.engine.fake import FakeRunner, limits, make_submit
from tests.engine.harness import Harness
from tests.engine.test_scheduler import Checked

FLOOD_SIZE = 200
FLOOD, ONE = b"flood", b"one"


def of(tenant: bytes, submit: Submit) -> Submit:
    return msgspec.structs.replace(submit, tenant=tenant)


def steps_until_first_token(harness: Harness, request_id: int) -> int:
    steps = 0
    while not harness.deltas.get(request_id):
        harness.step()
        steps += 1
    return steps


def alone(prompt_tokens: int) -> int:
    harness = Harness(FakeRunner(limits(kv_blocks=64)))
    harness.submit(of(ONE, make_submit(1000, range(prompt_tokens))))
    return steps_until_first_token(harness, 1000)


@pytest.mark.parametrize("warm_up_steps", [0, 1, 7, 30])
def test_one_request_waits_two_steps_longer_beside_a_flood(warm_up_steps: int) -> None:
    harness = Harness(FakeRunner(limits(kv_blocks=64)))
    for request_id in range(FLOOD_SIZE):
        prompt = range(request_id % 7, request_id % 7 + 9)
        harness.submit(of(FLOOD, make_submit(request_id, prompt, max_tokens=12)))
    for _ in range(warm_up_steps):
        harness.step()
    harness.submit(of(ONE, make_submit(1000, range(9))))
    assert steps_until_first_token(harness, 1000) <= alone(9) + 2
    harness.run()
    assert all(len(harness.tokens(request_id)) == 12 for request_id in range(FLOOD_SIZE))


def test_two_floods_share_what_there_is() -> None:
    harness = Harness(FakeRunner(limits(kv_blocks=64)))
    for request_id in range(60):
        harness.submit(of(FLOOD, make_submit(request_id, range(5), max_tokens=8)))
    for request_id in range(100, 160):
        harness.submit(of(ONE, make_submit(request_id, range(5), max_tokens=8)))
    for _ in range(60):
        harness.step()
    done = [
        sum(len(harness.tokens(i)) for i in ids if i in harness.deltas)
        for ids in (range(60), range(100, 160))
    ]
    assert min(done) * 1.5 >= max(done) > 0
    harness.run()


@pytest.mark.parametrize("answer", [20, 400])
def test_one_request_after_the_other_is_still_one_request(answer: int) -> None:
    room = limits(kv_blocks=900, max_model_len=512)
    harness = Harness(FakeRunner(room))
    for request_id in range(FLOOD_SIZE):
        harness.submit(of(FLOOD, make_submit(request_id, range(9), max_tokens=answer)))
    for _ in range(10):
        harness.step()
    for request_id in range(1000, 1040):
        harness.submit(of(ONE, make_submit(request_id, range(9), max_tokens=2)))
        assert steps_until_first_token(harness, request_id) <= alone(9) + 2
        while len(harness.tokens(request_id)) < 2:
            harness.step()


def test_a_budget_smaller_than_the_number_of_streams() -> None:
    """Streams of one tenant grow in number beside the prompt of another."""
    harness = Checked(limits(slots=8, kv_blocks=64, step_token_budget=4))
    for request_id in range(3):
        harness.submit(of(FLOOD, make_submit(request_id, [request_id], max_tokens=40)))
    harness.step()
    harness.submit(of(ONE, make_submit(10, range(30))))
    harness.step()
    for request_id in range(3, 7):
        harness.submit(of(FLOOD, make_submit(request_id, [request_id], max_tokens=40)))
    harness.run()
    harness.check_answers()


def test_streams_and_a_prompt_get_on_whatever_the_budget() -> None:
    harness = Checked(limits(slots=8, kv_blocks=64, step_token_budget=2))
    for request_id in range(5):
        harness.submit(make_submit(request_id, [request_id], max_tokens=40))
    for _ in range(10):
        harness.step()
    harness.submit(make_submit(10, range(9), max_tokens=1))
    before = [len(harness.tokens(request_id)) for request_id in range(5)]
    steps = 0
    while 10 not in harness.deltas:
        harness.step()
        steps += 1
    assert steps <= 9 + 1
    assert [len(harness.tokens(i)) - n for i, n in enumerate(before)] == [steps] * 5
    harness.run()
    harness.check_answers()


def test_within_a_tenant_the_order_of_arrival_stays() -> None:
    harness = Harness(FakeRunner(limits(kv_blocks=64)))
    for request_id in range(30):
        tenant = ONE if request_id % 3 else FLOOD
        harness.submit(of(tenant, make_submit(request_id, range(9), max_tokens=5)))
    harness.run()
    for tenant in (ONE, FLOOD):
        mine = [i for i in harness.deltas if (ONE if i % 3 else FLOOD) == tenant]
        assert mine == sorted(mine)


def test_who_was_away_has_nothing_saved_up() -> None:
    turns = Fairness()
    turns.arrive(FLOOD)
    turns.charge(FLOOD, 1000)
    turns.arrive(ONE)
    turns.charge(ONE, 10)
    assert turns.served(ONE) == 1010
    turns.leave(ONE)
    turns.charge(FLOOD, 5)
    turns.arrive(ONE)
    assert turns.served(ONE) == 1010, "nor does leaving pay"


def test_tenants_are_not_remembered_for_ever() -> None:
    turns = Fairness()
    turns.arrive(FLOOD)
    for number in range(3 * FORGET_AT):
        tenant = str(number).encode()
        turns.arrive(tenant)
        turns.leave(tenant)
    assert len(turns._served) <= FORGET_AT + 1
