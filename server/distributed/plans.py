"""How the leader's decisions reach the other ranks: one encoding, one ordered socket for each rank.

Followers hold no policy. They execute plans in the order in which they come and notice a gap by the
number of the plan. Nothing is pickled, and the sockets lie in a directory of this daemon's own.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import zmq

from server.engine.plan import StepPlan


class Launch(msgspec.Struct, frozen=True, array_like=True, tag=True):
    plan: StepPlan


class Rehearse(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """A plan that does not count."""

    plan: StepPlan


class Provide(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Masks of the oldest launched plan that waits for some."""

    masks: list[bytes | None]


Order = Launch | Rehearse | Provide


def rank_address(run_dir: Path, rank: int) -> str:
    return f"ipc://{run_dir}/rank-{rank}.sock"


class OrderSender:
    """The leader's end."""

    def __init__(self, run_dir: Path, ranks: int) -> None:
        self._context = zmq.Context()
        self._encoder = msgspec.msgpack.Encoder()
        self._sockets = [self._bind(rank_address(run_dir, rank)) for rank in range(1, ranks)]

    def _bind(self, address: str) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.PUSH)
        socket.sndhwm = 0  # a follower that lags must not lose an order
        socket.linger = 0
        socket.bind(address)
        return socket

    def send(self, order: Order) -> None:
        frame = self._encoder.encode(order)
        for socket in self._sockets:
            socket.send(frame)

    def close(self) -> None:
        for socket in self._sockets:
            socket.close()
        self._context.term()


class OrderReceiver:
    """A follower's end."""

    def __init__(self, run_dir: Path, rank: int) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PULL)
        self._socket.rcvhwm = 0
        self._socket.connect(rank_address(run_dir, rank))
        self._decoder = msgspec.msgpack.Decoder(Order)

    def receive(self, wait_s: float) -> Order | None:
        """The next order; None when none comes within `wait_s`."""
        if not self._socket.poll(int(wait_s * 1000)):
            return None
        order: Order = self._decoder.decode(self._socket.recv())
        return order

    def close(self) -> None:
        self._socket.close(linger=0)
        self._context.term()
