"""The policy: who computes how many tokens in the next step, and who has to wait.

One token budget per step. Requests that decode come first, then prompts in the order of arrival,
cut into chunks where the budget ends. When blocks run out the last in rank is preempted and later
recomputed. The scheduler knows lengths, never the values of tokens in flight, so a step can
be planned before the one before it has been read back.

What a request holds (slot, blocks, image references) is given up only when no launched plan names
it any more; `check_integrity` asserts this and the other invariants.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from server.engine.draft import Draft
from server.engine.fairness import Fairness, who_gives_way
from server.engine.launched import Drawn, Launched, LaunchedRow
from server.engine.plan import RunnerLimits, StepPlan, StepResult
from server.engine.request import Matcher, Request, Status, insert_by_rank, take_prompt_logprobs
from server.engine.residency import Residency
from server.engine.shortage import culprits, refusals
from server.engine.speculation import Speculation
from server.engine.totals import Totals
from server.engine.turns import Turns
from server.messages import Delta, FinishReason, Gauges, Submit

PeerDelta = tuple[bytes, Delta]


class Scheduler:
    """Owns every request from `submit` until its terminal delta.

    Args:
        limits: what the runner has room for; one request of `max_model_len` must fit its blocks.
        prefix_cache: whether prompts may reuse the blocks of earlier ones.
        speculate: whether requests guess; not in a layer pipeline.
    """

    def __init__(
        self, limits: RunnerLimits, *, prefix_cache: bool = True, speculate: bool = False
    ) -> None:
        self._limits = limits
        self._totals = Totals()
        self._residency = Residency(limits, self._totals, prefix_cache=prefix_cache)
        self._speculation = Speculation(self._residency, self._totals, enabled=speculate)
        self._requests: dict[tuple[bytes, int], Request] = {}
        self._waiting: list[Request] = []  # by rank, like those that run
        self._running: list[Request] = []
        self._leaving: set[Request] = set()  # preempted or finished, but named by a launched plan
        self._launched = Launched()
        self._arrivals = itertools.count()
        self._fairness = Fairness()
        self._next_step = 0
        self._turns = Turns(limits.stages)

    # Requests come and go.

    def submit(
        self,
        peer: bytes,
        submit: Submit,
        pixels: Sequence[memoryview | bytes],
        matcher: Matcher | None = None,
    ) -> list[PeerDelta]:
        """Takes a request into the queue; one that could never run is answered at once."""
        request = Request.from_submit(peer, submit, pixels, matcher, next(self._arrivals))
        fault = request.fault(self._limits)
        if (peer, request.id) in self._requests:
            fault = "the id of the request is in use"
        if fault is not None:
            return [(peer, Delta(request.id, [], FinishReason.ERROR, error=fault))]
        self._requests[peer, request.id] = request
        self._fairness.arrive(request.tenant)
        insert_by_rank(self._waiting, request)
        return []

    def cancel(self, peer: bytes, request_id: int) -> list[PeerDelta]:
        """Ends a request; one that is unknown or has ended is left as it is."""
        request = self._requests.get((peer, request_id))
        if request is None:
            return []
        self._totals.cancellations += 1
        self._finish(request)
        return [(peer, Delta(request.id, [], FinishReason.CANCELLED))]

    def forget_peer(self, peer: bytes) -> None:
        """Ends whatever a peer that is gone had asked for."""
        for request in [r for r in self._requests.values() if r.peer == peer]:
            self._finish(request)

    @property
    def idle(self) -> bool:
        """Nothing to schedule and nothing to retire."""
        return not self._requests and not self._launched

    def in_flight(self) -> Iterable[bytes]:
        """Fingerprints of whatever a launched plan names."""
        return dict.fromkeys(request.fingerprint for request in self._launched.requests())

    def gauges(self, prompt_budget: int = 0) -> Gauges:
        return self._totals.gauges(
            running=len(self._running),
            waiting=len(self._waiting),
            blocks=self._residency.blocks,
            image_slots_used=self._residency.pictures.slots.used,
            prompt_budget=prompt_budget,
        )

    # Planning a step.

    @property
    def nobody_decodes(self) -> bool:
        """Whether no stream waits for the next step."""
        return all(request.remaining > 1 for request in self._running)

    def schedule(self, prompt_tokens: int | None = None) -> StepPlan | None:
        """Plans the next step; None when nothing can be computed before a launched step retires.

        The plan counts as launched from here on. Its budget is `prompt_tokens` beside those who
        decode; by default that of the runner, for all, but at least one more than decode.
        """
        if self._speculation.waits(self._launched, self._running):
            return None
        self._make_way()
        decodes = self._turns.of(self._next_step, [r for r in self._running if r.remaining == 1])
        prompts = [request for request in self._running if request.remaining > 1]
        whole = max(self._limits.step_token_budget, len(decodes) + 1)
        draft = Draft(whole if prompt_tokens is None else prompt_tokens + len(decodes))
        if self._waiting and self._fairness.goes_first(first := self._first_waiting(), prompts):
            draft.reserve(len(decodes))
            if self._admit(first, draft):
                self._compute(first, draft)
            draft.reserve(-len(decodes))
        guesses = self._speculation.share(len(decodes), draft.budget)
        for request in itertools.chain(decodes, self._fairness.order_prompts(prompts)):
            # An older request may have preempted this one a moment ago.
            if draft.budget and request.status is Status.RUNNING and self._grow(request, draft):
                self._compute(request, draft, guesses)
        while draft.budget and self._waiting and self._admit(first := self._first_waiting(), draft):
            self._compute(first, draft)
        if not draft.rows:
            return None
        plan = draft.plan(self._next_step, self._turns.last_slots)
        self._turns.took(plan.step, draft)
        self._launched.add(plan.step, draft.rows)
        self._next_step += 1
        self._totals.steps += 1
        return plan

    def _compute(self, request: Request, draft: Draft, most_guesses: int = 0) -> None:
        """Adds as many of the request's uncomputed positions as budget and pictures allow, and for
        one that decodes some guesses."""
        start, count = request.scheduled, min(request.remaining, draft.budget)
        if request.images:
            count = self._residency.pictures.hold(request, count, draft)
        if count:
            if request.remaining > 1:
                self._fairness.serve_prompt(request, self._next_step)
            guesses = self._speculation.guess(request, most_guesses, len(self._running), draft)
            draft.compute(request, count, guesses)
            self._fairness.charge(request.tenant, count)
            self._residency.pictures.scatter(request, start, count, draft)
            self._residency.seal(request)

    # Room: admission, growth, preemption.

    def _admit(self, request: Request, draft: Draft) -> bool:
        """Lets a waiting request in if there is room for it beside one more block for everybody
        who runs."""
        spare_blocks = len(self._running)
        if request in self._leaving or not self._residency.enter(request, spare_blocks, draft):
            return False
        self._waiting.remove(request)
        insert_by_rank(self._running, request)
        request.status = Status.RUNNING
        return True

    def _first_waiting(self) -> Request:
        return self._fairness.first(self._waiting)

    def _make_way(self) -> None:
        """Sets back a request of a tenant that runs more than its share, where another tenant's
        has no room: that enters when the launched plans have retired."""
        if not self._waiting or self._leaving:
            return
        request = self._first_waiting()
        victim = who_gives_way(request, self._running)
        if victim is not None and self._residency.room(request, len(self._running)) is None:
            self._preempt(victim)

    def _grow(self, request: Request, draft: Draft) -> bool:
        """Makes sure that the request owns the block of its next position. Prompts always do."""
        if self._residency.owns_next(request):
            return True
        if not self._residency.blocks.available and not self._make_room(request, draft):
            return False
        self._residency.grow(request, draft)
        return True

    def _make_room(self, request: Request, draft: Draft) -> bool:
        """Preempts from the last in rank on until a block is free. Blocks of whoever a launched
        plan still names come free when it retires: then the request waits a step instead."""
        drafted = {row.request for row in draft.rows}
        for victim in [r for r in reversed(self._running) if r not in drafted]:
            if self._residency.blocks.available or self._leaving:
                break
            self._preempt(victim)
            if victim is request:
                return False
        return self._residency.blocks.available > 0

    def _preempt(self, request: Request) -> None:
        self._totals.preemptions += 1
        self._running.remove(request)
        insert_by_rank(self._waiting, request)
        request.status = Status.WAITING
        self._leave(request)

    def _finish(self, request: Request) -> None:
        del self._requests[request.peer, request.id]
        self._fairness.leave(request.tenant)
        if request.status is Status.WAITING:
            self._waiting.remove(request)
        else:
            self._running.remove(request)
            self._leave(request)
        request.status = Status.FINISHED

    def _leave(self, request: Request) -> None:
        self._leaving.add(request)
        if not request.in_flight:
            self._vacate(request)

    def _vacate(self, request: Request) -> None:
        self._leaving.remove(request)
        self._residency.leave(request)

    # Reading a step back.

    def retire(self, result: StepResult) -> list[PeerDelta]:
        """Takes the tokens of the oldest launched step; returns the news of its requests."""
        rows = self._launched.take(result)
        for part in result.prompt_logprobs:
            take_prompt_logprobs([row.request for row, _ in rows], part)
        deltas = []
        for row, drawn in rows:
            request = row.request
            request.in_flight -= 1
            if request.held_images:
                self._residency.pictures.release(request, row.end)
            request.unknown -= row.samples
            # Nobody waits for a token that was sampled after the end.
            if row.samples and request.status is not Status.FINISHED:
                deltas += self._accept(row, drawn)
            if not request.in_flight and request in self._leaving:
                self._vacate(request)
        return deltas

    def _accept(self, row: LaunchedRow, drawn: Sequence[Drawn]) -> list[PeerDelta]:
        """Takes what a row has drawn as far as its guesses were right and the answer goes on."""
        request, confirmed = row.request, row.confirmed(drawn)
        known = len(request.tokens)
        deltas = request.take(drawn[: confirmed + 1])
        self._totals.generated_tokens += len(request.tokens) - known
        self._speculation.learn(row, confirmed)
        if request.status is Status.RUNNING:
            self._residency.seal(request)
        if deltas[-1].finish is not None:
            self._finish(request)
        return [(request.peer, delta) for delta in deltas]

    def start_over(self, *, encoding: bool) -> list[PeerDelta]:
        """Takes back all launched steps, because the oldest ran out of memory, in its pictures or
        not: whoever caused that fails, the others are computed again from the tokens known."""
        guilty = culprits(self._launched.oldest, encoding=encoding)
        self._launched.forget()
        self._turns = Turns(self._limits.stages)
        for request in [*self._leaving, *self._running]:
            request.forget_launched()
            if request in self._leaving:
                self._vacate(request)
            else:
                self._preempt(request)
        self._residency.forget_caches()  # some of it was to be computed by those steps
        for request in guilty:
            self._finish(request)
        return refusals(guilty)

    def masks(self) -> list[bytes | None]:
        """Masks of the oldest launched plan, all of whose earlier tokens are known."""
        return [row.mask() for row in self._launched.oldest if row.masked]

    def check_integrity(self) -> None:
        """Asserts the invariants; for tests and for `--check-integrity`."""
        residents = {*self._running, *self._leaving}
        assert len(residents) == len(self._running) + len(self._leaving)
        self._residency.check_integrity(residents)
        for request in self._requests.values():
            listed = self._running if request.status is Status.RUNNING else self._waiting
            assert listed.count(request) == 1
        assert len(self._requests) == len(self._running) + len(self._waiting)
        assert all(request.in_flight for request in self._leaving)
        named = self._launched.requests()
        assert residents.issuperset(named), "something was given up that a launched plan names"
        for request in {*self._requests.values(), *residents}:
            assert request.in_flight == named.count(request)
            assert 0 <= request.scheduled <= request.length <= self._limits.max_model_len
