"""The engine's single-threaded loop: receive, schedule, launch, retire, report.

Up to two steps are in flight: step n+1 is launched before the tokens of step n are read, so the
device never waits for the policy. Whatever arrives is looked at once per step, without waiting
while there is work.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from typing import NoReturn

from server.engine.plan import Pending, Runner
from server.engine.scheduler import PeerDelta, Scheduler
from server.ipc import EngineEndpoint
from server.messages import Cancel, Delta, Hello, Outputs, Ready, Submit

DEPTH = 2

log = logging.getLogger(__name__)


class Engine:
    """Ties a runner to the API processes.

    Args:
        ready: what `Hello` is answered with.
        check_integrity: assert every invariant after each step.
    """

    def __init__(
        self,
        runner: Runner,
        endpoint: EngineEndpoint,
        scheduler: Scheduler,
        ready: Ready,
        *,
        check_integrity: bool = False,
    ) -> None:
        self._runner = runner
        self._endpoint = endpoint
        self._scheduler = scheduler
        self._ready = ready
        self._check_integrity = check_integrity
        self._pending: deque[Pending] = deque()
        self._peers: set[bytes] = set()

    def run(self) -> NoReturn:
        """Serves until the process is told to end. What the device raises ends the loop too."""
        while True:
            self.step(wait_s=None)

    def step(self, wait_s: float | None) -> None:
        """One turn of the loop; with nothing to do it waits up to `wait_s` for a message."""
        self._receive(wait_s if self._scheduler.idle else 0.0)
        plan = self._scheduler.schedule()
        if plan is not None:
            self._pending.append(self._runner.launch(plan))
        if self._pending and (plan is None or len(self._pending) == DEPTH):
            self._report(self._scheduler.retire(self._pending.popleft().result()))
        if self._check_integrity:
            self._scheduler.check_integrity()

    def _receive(self, wait_s: float | None) -> None:
        deltas: list[PeerDelta] = []
        for peer, message, pictures in self._endpoint.receive(wait_s):
            match message:
                case Submit():
                    deltas += self._scheduler.submit(peer, message, pictures)
                case Cancel():
                    deltas += self._scheduler.cancel(peer, message.id)
                case Hello():
                    log.info("connected to %s", peer.decode(errors="replace"))
                    self._scheduler.forget_peer(peer)
                    self._peers.add(peer)
                    self._endpoint.send(peer, self._ready)
        if deltas:
            self._report(deltas)

    def _report(self, deltas: Iterable[PeerDelta]) -> None:
        """One message to each API process, also to those without news: the gauges are for all."""
        by_peer: dict[bytes, list[Delta]] = {peer: [] for peer in self._peers}
        for peer, delta in deltas:
            by_peer.setdefault(peer, []).append(delta)
        gauges = self._scheduler.gauges()
        for peer, news in by_peer.items():
            self._endpoint.send(peer, Outputs(news, gauges))
