"""A tenant with one request beside a tenant with hundreds."""

from __future__ import annotations

import msgspec
import pytest

from server.engine.fairness import FORGET_AT, Fairness
from server.messages import Submit
from tests.engine.fake import FakeRunner, limits, make_submit
from tests.engine.harness import Harness

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


def test_within_a_tenant_the_order_of_arrival_stays() -> None:
    turns = Fairness()
    places = [turns.place(ONE, 10) for _ in range(5)]
    assert places == sorted(places)
    assert turns.place(FLOOD, 10) == 0


def test_tenants_are_not_remembered_for_ever() -> None:
    turns = Fairness()
    for number in range(3 * FORGET_AT):
        turns.place(str(number).encode(), 1)
    assert len(turns._next) <= 3 * FORGET_AT
