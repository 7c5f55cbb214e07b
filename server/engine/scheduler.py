"""The policy: who computes how many tokens in the next step, and who has to wait.

One token budget per step. Requests that decode come first, then prompts in the order of arrival,
cut into chunks where the budget ends. When blocks run out the last in rank is preempted and later
recomputed. The scheduler knows lengths, never the values of tokens in flight, so a step can
be planned before the one before it has been read back.

What a request holds (slot, blocks, image references) is given up only when no launched plan names
it any more; `check_integrity` asserts this and the other invariants.
"""

from __future__ import annotations

import bisect
import itertools
from collections import deque
from collections.abc import Sequence
from itertools import zip_longest

from server.engine.blocks import BlockPool
from server.engine.draft import Draft, LaunchedRow
from server.engine.images import ImageSlots
from server.engine.plan import (
    Grow,
    Install,
    PromptLogprobs,
    RunnerLimits,
    StepPlan,
    StepResult,
)
from server.engine.request import Matcher, Request, Status
from server.engine.totals import Totals
from server.messages import Delta, FinishReason, Gauges, Submit, TokenLogprob

PeerDelta = tuple[bytes, Delta]

GRAMMAR_FAILED = "The answer could not follow its grammar."


class Scheduler:
    """Owns every request from `submit` until its terminal delta.

    Args:
        limits: what the runner has room for; one request of `max_model_len` must fit its blocks.
        prefix_cache: whether prompts may reuse the blocks of earlier ones.
    """

    def __init__(self, limits: RunnerLimits, *, prefix_cache: bool = True) -> None:
        self._limits = limits
        self._prefix_cache = prefix_cache
        self._blocks = BlockPool(limits.kv_blocks)
        self._images = ImageSlots(limits.image_slots)
        self._slots = list(range(limits.slots - 1, -1, -1))
        self._requests: dict[tuple[bytes, int], Request] = {}
        self._waiting: list[Request] = []  # by rank, like those that run
        self._running: list[Request] = []
        self._leaving: set[Request] = set()  # preempted or finished, but named by a launched plan
        self._launched: deque[tuple[int, list[LaunchedRow]]] = deque()
        self._arrivals = itertools.count()
        self._next_step = 0
        self._last_slots: list[int] = []
        self._totals = Totals()

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
        _insert(self._waiting, request)
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

    def gauges(self) -> Gauges:
        return self._totals.gauges(
            running=len(self._running),
            waiting=len(self._waiting),
            blocks=self._blocks,
            images=self._images,
        )

    # Planning a step.

    def schedule(self) -> StepPlan | None:
        """Plans the next step; None when nothing can be computed before a launched step retires.

        The plan counts as launched from here on.
        """
        draft = Draft(self._limits.step_token_budget)
        decodes = [request for request in self._running if request.remaining == 1]
        prompts = [request for request in self._running if request.remaining > 1]
        for request in itertools.chain(decodes, prompts):
            # An older request may have preempted this one a moment ago.
            if draft.budget and request.status is Status.RUNNING and self._grow(request, draft):
                self._compute(request, draft)
        while draft.budget and self._waiting and self._admit(request := self._waiting[0], draft):
            self._compute(request, draft)
        if not draft.rows:
            return None
        plan = draft.plan(self._next_step, self._last_slots)
        self._last_slots = draft.slots
        self._launched.append((plan.step, draft.rows))
        self._next_step += 1
        self._totals.steps += 1
        return plan

    def _compute(self, request: Request, draft: Draft) -> None:
        """Adds as many of the request's uncomputed positions as budget and pictures allow."""
        start, count = request.scheduled, min(request.remaining, draft.budget)
        if request.images:
            count = self._hold_images(request, count, draft)
        if count:
            draft.compute(request, count)
            self._scatter_images(request, start, count, draft)
            self._seal(request)

    def _hold_images(self, request: Request, count: int, draft: Draft) -> int:
        """Makes the pictures that the next `count` positions touch resident, as far as slots and
        budget allow; returns how many positions can be computed with those."""
        start = request.scheduled
        for index, image in enumerate(request.images):
            if image.offset + image.length <= start or index in request.held_images:
                continue
            if image.offset >= start + count:
                break
            if not self._can_hold(image.digest, draft):
                return max(0, image.offset - start)
            encode = not self._images.resident(image.digest)
            image_slot = self._images.acquire(image.digest)
            request.held_images[index] = image_slot
            if encode:
                cost = self._limits.image_cost_tokens
                draft.encode(image_slot, request.pixels[index], cost)
                count = min(count, draft.budget)
            self._totals.count_image(encoded=encode)
        return count

    def _can_hold(self, digest: bytes, draft: Draft) -> bool:
        return self._images.resident(digest) or (
            self._images.room and draft.can_encode(self._limits.image_cost_tokens)
        )

    def _scatter_images(self, request: Request, start: int, count: int, draft: Draft) -> None:
        """Tells which of the positions just added take picture embeddings."""
        for index, image_slot in request.held_images.items():
            image = request.images[index]
            first = max(start, image.offset)
            end = min(start + count, image.offset + image.length)
            if first < end:
                draft.scatter(request, first, image_slot, first - image.offset, end - first)

    def _seal(self, request: Request) -> None:
        """Offers blocks that are full of known, computed tokens to the prefix cache.

        A block is offered as soon as the plan that fills it is made: plans run in order and write
        before they read, so whoever finds it may use it, even in the same plan.
        """
        if not self._prefix_cache:
            return
        size = self._limits.kv_block_size
        full = min(len(request.tokens), request.scheduled) // size
        if full == request.sealed:
            return
        keys = itertools.islice(request.prefix_keys(size), request.sealed, full)
        for block, key in zip(request.blocks[request.sealed : full], keys, strict=True):
            self._blocks.seal(block, key)
        request.sealed = full

    # Room: admission, growth, preemption.

    def _admit(self, request: Request, draft: Draft) -> bool:
        """Gives a waiting request a slot and blocks for all tokens it has, if there is room beside
        one more block for everybody who runs."""
        if not self._slots or request in self._leaving:
            return False
        size = self._limits.kv_block_size
        cached = self._cached_prefix(request)
        computed = len(cached) * size
        needed = -(-request.length // size) - len(cached)
        room = self._blocks.available - self._blocks.unreferenced(cached)
        if room < needed + len(self._running) or not self._can_start(request, computed, draft):
            return False
        self._waiting.remove(request)
        _insert(self._running, request)
        request.status = Status.RUNNING
        request.slot = self._slots.pop()
        self._blocks.acquire(cached)
        request.blocks = cached + self._blocks.allocate(needed)
        request.scheduled, request.sealed = computed, len(cached)
        if not request.admitted:
            request.admitted = True
            request.cached_tokens = min(computed, request.prompt_length)
            self._totals.prompt_tokens += request.prompt_length
            self._totals.cached_tokens += request.cached_tokens
        draft.installs.append(
            Install(
                slot=request.slot,
                tokens=request.tokens.tobytes(),
                prompt_length=request.prompt_length,
                computed=computed,
                blocks=list(request.blocks),
                sampling=request.sampling,
                stop_ids=sorted(request.stop_ids) if request.sampling.min_tokens else [],
                prompt_logprobs=request.prompt_logprobs_wanted,
            )
        )
        return True

    def _cached_prefix(self, request: Request) -> list[int]:
        """Cached blocks that the request begins with; at least one token is left to compute, and
        all of them where their log probabilities were asked for."""
        if not self._prefix_cache or request.prompt_logprobs_wanted is not None:
            return []
        size = self._limits.kv_block_size
        keys = itertools.islice(request.prefix_keys(size), (request.length - 1) // size)
        return self._blocks.match(keys)

    def _can_start(self, request: Request, position: int, draft: Draft) -> bool:
        """Whether the first position to compute could be computed now: false inside a picture that
        is neither resident nor can be encoded in this step."""
        return all(
            self._can_hold(image.digest, draft)
            for image in request.images
            if image.offset <= position < image.offset + image.length
        )

    def _grow(self, request: Request, draft: Draft) -> bool:
        """Makes sure that the request owns the block of its next position. Prompts always do."""
        if request.scheduled < len(request.blocks) * self._limits.kv_block_size:
            return True
        if not self._blocks.available and not self._make_room(request, draft):
            return False
        blocks = self._blocks.allocate(1)
        request.blocks += blocks
        assert request.slot is not None
        draft.grows.append(Grow(request.slot, blocks))
        return True

    def _make_room(self, request: Request, draft: Draft) -> bool:
        """Preempts from the last in rank on until a block is free. Blocks of whoever a launched
        plan still names come free when it retires: then the request waits a step instead."""
        drafted = {row.request for row in draft.rows}
        for victim in [r for r in reversed(self._running) if r not in drafted]:
            if self._blocks.available or self._leaving:
                break
            self._preempt(victim)
            if victim is request:
                return False
        return self._blocks.available > 0

    def _preempt(self, request: Request) -> None:
        self._totals.preemptions += 1
        self._running.remove(request)
        _insert(self._waiting, request)
        request.status = Status.WAITING
        self._leave(request)

    def _finish(self, request: Request) -> None:
        del self._requests[request.peer, request.id]
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
        """Gives back what a request holds that no launched plan names."""
        self._leaving.remove(request)
        self._blocks.release(request.blocks)
        assert request.slot is not None
        self._slots.append(request.slot)
        for index in request.held_images:
            self._images.release(request.images[index].digest)
        request.slot, request.blocks, request.held_images = None, [], {}
        request.scheduled = request.sealed = 0

    # Reading a step back.

    def retire(self, result: StepResult) -> list[PeerDelta]:
        """Takes the tokens of the oldest launched step; returns the news of its requests."""
        step, rows = self._launched.popleft()
        assert step == result.step
        tokens = iter(zip_longest(result.token_ids, result.logprobs))
        for part in result.prompt_logprobs:
            _take_prompt_logprobs(rows, part)
        deltas = []
        for row in rows:
            request = row.request
            request.in_flight -= 1
            if request.held_images:
                self._release_images(request, row.end)
            if row.samples:
                token, logprob = next(tokens)
                request.unknown -= 1
                # Nobody waits for a token that was sampled after the end.
                if request.status is not Status.FINISHED:
                    deltas.append((request.peer, self._accept(request, token, logprob)))
            if not request.in_flight and request in self._leaving:
                self._vacate(request)
        return deltas

    def _release_images(self, request: Request, computed: int) -> None:
        for index in list(request.held_images):
            image = request.images[index]
            if image.offset + image.length <= computed:
                del request.held_images[index]
                self._images.release(image.digest)

    def _accept(self, request: Request, token: int, logprob: TokenLogprob | None) -> Delta:
        request.tokens.append(token)
        self._totals.generated_tokens += 1
        finish = self._finish_reason(request, token)
        if request.status is Status.RUNNING:
            self._seal(request)
        if finish is not None:
            self._finish(request)
        first = len(request.tokens) == request.prompt_length + 1
        wants_prompt = request.prompt_logprobs_wanted is not None
        return Delta(
            request.id,
            [token],
            finish,
            cached_tokens=request.cached_tokens,
            error=GRAMMAR_FAILED if finish is FinishReason.ERROR else None,
            logprobs=None if logprob is None else [logprob],
            prompt_logprobs=request.prompt_logprobs if first and wants_prompt else None,
        )

    def _finish_reason(self, request: Request, token: int) -> FinishReason | None:
        if token in request.stop_ids:
            return FinishReason.STOP
        if request.matcher is not None:
            request.matcher.accept(token)
            if request.matcher.failed:
                return FinishReason.ERROR
            if request.matcher.complete:
                return FinishReason.STOP
        if len(request.tokens) - request.prompt_length == request.max_tokens:
            return FinishReason.LENGTH
        return None

    def masks(self) -> list[bytes | None]:
        """Masks of the oldest launched plan, all of whose earlier tokens are known."""
        _, rows = self._launched[0]
        return [
            row.request.matcher.mask()
            if row.request.matcher is not None and row.request.status is not Status.FINISHED
            else None
            for row in rows
            if row.masked
        ]

    def check_integrity(self) -> None:
        """Asserts the invariants; for tests and for `--check-integrity`."""
        size = self._limits.kv_block_size
        holders = {*self._running, *self._leaving}
        assert len(holders) == len(self._running) + len(self._leaving)
        self._blocks.check_integrity(request.blocks for request in holders)
        self._images.check_integrity(
            request.images[index].digest for request in holders for index in request.held_images
        )
        slots = [request.slot for request in holders if request.slot is not None]
        assert len(slots) == len(holders)
        assert sorted([*self._slots, *slots]) == list(range(self._limits.slots))
        for request in self._requests.values():
            listed = self._running if request.status is Status.RUNNING else self._waiting
            assert listed.count(request) == 1
        assert len(self._requests) == len(self._running) + len(self._waiting)
        assert all(request.in_flight for request in self._leaving)
        named = [row.request for _, rows in self._launched for row in rows]
        assert holders.issuperset(named), "something was given up that a launched plan names"
        for request in {*self._requests.values(), *holders}:
            assert request.in_flight == named.count(request)
            assert 0 <= request.scheduled <= request.length <= self._limits.max_model_len
            assert len(request.blocks) * size >= request.scheduled
            assert request.sealed <= request.scheduled // size


def _insert(requests: list[Request], request: Request) -> None:
    """Keeps a list of requests in the order of their ranks."""
    bisect.insort(requests, request, key=lambda request: request.rank)


def _take_prompt_logprobs(rows: Sequence[LaunchedRow], part: PromptLogprobs) -> None:
    """Appends what is new: a request that was preempted reports the same positions again."""
    request = next(row.request for row in rows if row.request.slot == part.slot)
    known = len(request.prompt_logprobs) + 1
    request.prompt_logprobs += part.entries[known - part.position :]
