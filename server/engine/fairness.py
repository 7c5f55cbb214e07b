"""Turns between tenants: one that sends a flood waits behind its own requests, not before others.

Start-time fair queueing: each request is given a virtual time at its arrival, after those of its
tenant before it and not before that of the request that was let in last. Ranks are fixed then, so
the queue stays sorted. Room that a tenant holds beyond its share is taken back for one that has
less, from the request that came last; each exchange makes the shares more even, so it ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from server.engine.request import Request

ANSWER_COST_TOKENS = 64
"""What an answer of unknown length counts, beside its prompt."""

FORGET_AT = 1024
"""Tenants whose virtual time has passed are forgotten when there are so many."""


class Fairness:
    """Virtual time, in tokens."""

    def __init__(self) -> None:
        self._now = 0
        self._next: dict[bytes, int] = {}
        self._prompts_served: dict[bytes, int] = {}

    def place(self, tenant: bytes, prompt_tokens: int) -> int:
        """Virtual time of a request that arrives now."""
        at = max(self._now, self._next.get(tenant, 0))
        self._next[tenant] = at + prompt_tokens + ANSWER_COST_TOKENS
        if len(self._next) > FORGET_AT:
            self._next = {t: time for t, time in self._next.items() if time > self._now}
        return at

    def enter(self, request: Request) -> None:
        """A request was let in."""
        self._now = max(self._now, request.turn)

    def order_prompts(self, prompts: Sequence[Request]) -> list[Request]:
        """By rank, but tenants take turns at being the first of their priority: the first may use
        up a whole step."""
        tenants = {request.tenant for request in prompts}
        if len(tenants) < 2:
            return list(prompts)
        served = self._prompts_served
        return sorted(prompts, key=lambda r: (r.priority, served.get(r.tenant, -1), r.rank))

    def goes_first(self, request: Request, prompts: Sequence[Request]) -> bool:
        """Whether a waiting request comes before all running prompts, because its tenant has none
        among them."""
        return bool(prompts) and all(
            request.tenant != other.tenant and request.priority <= other.priority
            for other in prompts
        )

    def serve_prompt(self, request: Request, step: int) -> None:
        """A part of a prompt is computed in a step."""
        self._prompts_served[request.tenant] = step
        if len(self._prompts_served) > FORGET_AT:
            self._prompts_served = {request.tenant: step}


def who_gives_way(request: Request, running: Sequence[Request]) -> Request | None:
    """The running request to set back so that `request` can enter: the last in rank of the tenant
    that runs most, if that has at least two more than the tenant of `request`."""
    shares = Counter(other.tenant for other in running if other.priority >= request.priority)
    if not shares:
        return None
    tenant, share = shares.most_common(1)[0]
    own = sum(other.tenant == request.tenant for other in running)
    if tenant == request.tenant or share < own + 2:
        return None
    return next(
        other
        for other in reversed(running)
        if other.tenant == tenant and other.priority >= request.priority
    )
