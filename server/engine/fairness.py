"""Turns between tenants: one that sends a flood waits behind its own requests, not before others.

What a tenant gets is counted, position by position, and whoever has got least comes first (Sheng et
al., "Fairness in Serving Large Language Models", 2024). A tenant that was away begins at what the
others have got by then: nothing is saved up. Room that a tenant holds beyond its share is taken
back for one that has less, from the request that came last; each exchange makes the shares more
even, so it ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from server.engine.request import Request

FORGET_AT = 1024
"""Tenants without requests are forgotten when there are so many."""


class Fairness:
    """What each tenant has got, in positions computed."""

    def __init__(self) -> None:
        self._served: dict[bytes, int] = {}
        self._open: Counter[bytes] = Counter()
        """Requests of each tenant that has any."""
        self._prompts_served: dict[bytes, int] = {}

    def arrive(self, tenant: bytes) -> None:
        """A tenant sends a request."""
        if tenant not in self._open:
            least = min((self._served[other] for other in self._open), default=0)
            self._served[tenant] = max(least, self.served(tenant))
        self._open[tenant] += 1

    def leave(self, tenant: bytes) -> None:
        """One of its requests has ended."""
        self._open[tenant] -= 1
        if not self._open[tenant]:
            del self._open[tenant]
            if len(self._served) > FORGET_AT:
                self._served = {other: self._served[other] for other in self._open}

    def charge(self, tenant: bytes, positions: int) -> None:
        """Positions are computed for it."""
        self._served[tenant] += positions

    def served(self, tenant: bytes) -> int:
        return self._served.get(tenant, 0)

    def first(self, waiting: Sequence[Request]) -> Request:
        """Of those that wait, by rank, the one to let in next."""
        if len(self._open) == 1:
            return waiting[0]
        firsts: dict[bytes, Request] = {}
        for request in waiting:
            if request.priority > waiting[0].priority:
                break
            firsts.setdefault(request.tenant, request)
        return min(firsts.values(), key=lambda request: self._served[request.tenant])

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
