from __future__ import annotations

from array import array
from pathlib import Path

import msgspec

from server.distributed.plans import (
    Launch,
    Order,
    OrderReceiver,
    OrderSender,
    Provide,
    Rehearse,
    local_address,
    remote_address,
)
from server.engine.plan import Confirm, Encode, Grow, Install, Row, Scatter, StepPlan
from server.messages import SamplingParams

PLAN = StepPlan(
    step=4,
    confirms=[Confirm(0, 3)],
    installs=[
        Install(
            slot=1,
            tokens=array("i", [5, 6]).tobytes(),
            prompt_length=2,
            computed=0,
            blocks=[3],
            sampling=SamplingParams(seed=2**63 - 1, logit_bias={7: -1.5}, bad_words=[[1, 2]]),
            stop_ids=[7],
            prompt_logprobs=0,
        )
    ],
    grows=[Grow(0, [9])],
    encodes=[Encode(2, memoryview(bytes(range(200)) * 3000))],
    scatters=[Scatter(1, 0, 2, 0, 1)],
    rows=[Row(0, 3, guesses=[8, 9]), Row(1, 2)],
    masked=[1],
)
ORDERS: list[Order] = [
    Rehearse(StepPlan(0, rows=[Row(0, 3)])),
    Launch(PLAN),
    Provide([b"\xff\x01", None]),
    *[Launch(StepPlan(step)) for step in range(5, 500)],
]


def test_every_rank_gets_every_order_in_its_turn(tmp_path: Path) -> None:
    sender = OrderSender([local_address(tmp_path, 1), remote_address("127.0.0.1")])
    receivers = [OrderReceiver(endpoint) for endpoint in sender.endpoints]
    for order in ORDERS:
        sender.send(order)
    for receiver in receivers:
        assert [receiver.receive(wait_s=5) for _ in ORDERS] == ORDERS
        assert receiver.receive(wait_s=0) is None
        receiver.close()
    sender.close()


def test_a_steady_decode_step_is_a_header() -> None:
    assert len(msgspec.msgpack.encode(Launch(StepPlan(123_456)))) < 32
