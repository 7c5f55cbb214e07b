"""How the leader's decisions reach the other ranks: one encoding, one ordered socket for each rank.

Followers hold no policy. They execute plans in the order in which they come and notice a gap by the
number of the plan. Nothing is pickled. Sockets of this host lie in a directory of this daemon's
own, those of other hosts are bound to the one address by which the hosts know the leader.
"""

from __future__ import annotations

from collections.abc import Sequence
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


def local_address(run_dir: Path, rank: int) -> str:
    return f"ipc://{run_dir}/rank-{rank}.sock"


def remote_address(host: str) -> str:
    """A free port of this host's address `host`."""
    return f"tcp://[{host}]:*" if ":" in host else f"tcp://{host}:*"


class OrderSender:
    """The leader's end.

    Args:
        addresses: to bind, one for each of the other ranks.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self._context = zmq.Context()
        self._encoder = msgspec.msgpack.Encoder()
        self._sockets = [self._bind(address) for address in addresses]

    def _bind(self, address: str) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.PUSH)
        socket.sndhwm = 0  # a follower that lags must not lose an order
        socket.linger = 0
        socket.ipv6 = "[" in address
        socket.bind(address)
        return socket

    @property
    def endpoints(self) -> list[str]:
        """Where the other ranks find their orders."""
        return [socket.getsockopt_string(zmq.LAST_ENDPOINT) for socket in self._sockets]

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

    def __init__(self, endpoint: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PULL)
        self._socket.rcvhwm = 0
        self._socket.ipv6 = "[" in endpoint
        self._socket.connect(endpoint)
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
