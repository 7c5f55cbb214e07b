"""What a running request holds: a slot, blocks of the KV cache, picture embeddings.

A request enters with room for all tokens it has and grows block by block; blocks that are full of
known tokens are offered to the prefix cache. Who enters and who has to leave is not decided here.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection

from server.engine.blocks import BlockPool
from server.engine.draft import Draft
from server.engine.images import Pictures
from server.engine.plan import Grow, Install, RunnerLimits
from server.engine.request import Request
from server.engine.totals import Totals


class Residency:
    """Owns slots, blocks and picture slots."""

    def __init__(self, limits: RunnerLimits, totals: Totals, *, prefix_cache: bool) -> None:
        self.blocks = BlockPool(limits.kv_blocks)
        self.pictures = Pictures(limits, totals)
        self._free_slots = list(range(limits.slots - 1, -1, -1))
        self._num_slots = limits.slots
        self._block_size = limits.kv_block_size
        self._totals = totals
        self._prefix_cache = prefix_cache

    def enter(self, request: Request, spare_blocks: int, draft: Draft) -> bool:
        """Gives a request a slot and blocks for all tokens it has, those of a cached prefix first;
        false when there is no room for it with `spare_blocks` left over, or when its first
        position could not be computed in this step."""
        room = self.room(request, spare_blocks)
        if room is None:
            return False
        cached, needed = room
        computed = len(cached) * self._block_size
        if not self.pictures.can_start(request, computed, draft):
            return False
        request.slot = self._free_slots.pop()
        self.blocks.acquire(cached)
        request.blocks = cached + self.blocks.allocate(needed)
        request.scheduled, request.sealed = computed, len(cached)
        self._count_prompt(request, computed)
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

    def room(self, request: Request, spare_blocks: int) -> tuple[list[int], int] | None:
        """Blocks of a cached prefix and how many the request needs beside them; None without a slot
        or without blocks for it with `spare_blocks` left over."""
        if not self._free_slots:
            return None
        cached = self._cached_prefix(request)
        needed = -(-request.length // self._block_size) - len(cached)
        free = self.blocks.available - self.blocks.unreferenced(cached)
        return (cached, needed) if free >= needed + spare_blocks else None

    def _cached_prefix(self, request: Request) -> list[int]:
        """Cached blocks that the request begins with; at least one token is left to compute, and
        all of them where their log probabilities were asked for."""
        if not self._prefix_cache or request.prompt_logprobs_wanted is not None:
            return []
        keys = request.prefix_keys(self._block_size)
        return self.blocks.match(itertools.islice(keys, (request.length - 1) // self._block_size))

    def _count_prompt(self, request: Request, computed: int) -> None:
        """Counts a prompt once, also when the request enters again after a preemption."""
        if not request.admitted:
            request.admitted = True
            request.entered_s = time.monotonic()
            request.cached_tokens = min(computed, request.prompt_length)
            self._totals.prompt_tokens += request.prompt_length
            self._totals.cached_tokens += request.cached_tokens

    def owns_next(self, request: Request) -> bool:
        """Whether the request owns the block of its next position."""
        return request.scheduled < len(request.blocks) * self._block_size

    def grow(self, request: Request, draft: Draft) -> None:
        """Adds a block, which must be available."""
        assert request.slot is not None
        blocks = self.blocks.allocate(1)
        request.blocks += blocks
        draft.grows.append(Grow(request.slot, blocks))

    def reach(self, request: Request, count: int, spare_blocks: int, draft: Draft) -> int:
        """How many of the next `count` positions the request owns; it grows for them as long as
        `spare_blocks` are left over."""
        end = len(request.blocks) * self._block_size
        while end < request.scheduled + count and self.blocks.available > spare_blocks:
            self.grow(request, draft)
            end += self._block_size
        return min(count, end - request.scheduled)

    def seal(self, request: Request) -> None:
        """Offers blocks that are full of known, computed tokens to the prefix cache.

        A block is offered as soon as the plan that fills it is made: plans run in order and write
        before they read, so whoever finds it may use it, even in the same plan.
        """
        full = min(len(request.tokens), request.scheduled) // self._block_size
        if not self._prefix_cache or full == request.sealed:
            return
        keys = itertools.islice(request.prefix_keys(self._block_size), request.sealed, full)
        for block, key in zip(request.blocks[request.sealed : full], keys, strict=True):
            self.blocks.seal(block, key)
        request.sealed = full

    def leave(self, request: Request) -> None:
        """Gives back everything; no launched plan names the request any more."""
        assert request.slot is not None
        self.blocks.release(request.blocks)
        self.pictures.release(request)
        self._free_slots.append(request.slot)
        request.slot, request.blocks = None, []
        request.scheduled = request.sealed = request.confirmed = 0

    def forget_caches(self) -> None:
        """Keeps nothing for later; nobody holds anything."""
        self.blocks.forget()
        self.pictures.slots.forget()

    def check_integrity(self, residents: Collection[Request]) -> None:
        """Asserts the invariants against the requests that hold something."""
        self.blocks.check_integrity(request.blocks for request in residents)
        self.pictures.slots.check_integrity(
            request.images[index].digest for request in residents for index in request.held_images
        )
        taken = [request.slot for request in residents if request.slot is not None]
        assert len(taken) == len(residents)
        assert sorted([*self._free_slots, *taken]) == list(range(self._num_slots))
        for request in residents:
            assert len(request.blocks) * self._block_size >= request.scheduled
            assert request.sealed <= request.scheduled // self._block_size
