"""Where picture embeddings live on the device: a fixed set of slots, found by digest.

A slot is referenced while requests have uncomputed positions inside its picture; after that it
stays resident for the next request with the same picture until its room is needed. Whoever finds a
picture resident need not encode it, also when the encoding is part of the very plan being made.
"""

from __future__ import annotations

from collections.abc import Iterable

from server.engine.draft import Draft
from server.engine.plan import RunnerLimits
from server.engine.request import Request
from server.engine.totals import Totals


class ImageSlots:
    """`num_slots` slots, numbered from 0."""

    def __init__(self, num_slots: int) -> None:
        self.num_slots = num_slots
        self._free = list(range(num_slots - 1, -1, -1))
        self._by_digest: dict[bytes, int] = {}
        self._references: dict[bytes, int] = {}
        self._evictable: dict[bytes, None] = {}  # in the order of release, oldest first

    @property
    def used(self) -> int:
        """Slots that requests are reading."""
        return len(self._references)

    def resident(self, digest: bytes) -> bool:
        return digest in self._by_digest

    @property
    def room(self) -> bool:
        """Whether one more picture can become resident."""
        return bool(self._free or self._evictable)

    def acquire(self, digest: bytes) -> int:
        """Adds a reference and returns the slot; the caller has checked `resident` or `room`, and
        encodes the picture into the slot if it was not resident."""
        slot = self._by_digest.get(digest)
        if slot is None:
            slot = self._by_digest[digest] = self._free.pop() if self._free else self._evict()
        self._evictable.pop(digest, None)
        self._references[digest] = self._references.get(digest, 0) + 1
        return slot

    def _evict(self) -> int:
        digest = next(iter(self._evictable))
        del self._evictable[digest]
        return self._by_digest.pop(digest)

    def release(self, digest: bytes) -> None:
        """Drops one reference."""
        self._references[digest] -= 1
        if self._references[digest] == 0:
            del self._references[digest]
            self._evictable[digest] = None

    def forget(self) -> None:
        """Makes every slot free; nobody holds one."""
        assert not self._references
        self._free += self._by_digest.values()
        self._by_digest.clear()
        self._evictable.clear()

    def check_integrity(self, held: Iterable[bytes]) -> None:
        """Asserts the invariants against the digests that requests hold."""
        counts: dict[bytes, int] = {}
        for digest in held:
            counts[digest] = counts.get(digest, 0) + 1
        assert counts == self._references, "a reference was lost or invented"
        assert self._by_digest.keys() == self._references.keys() | self._evictable.keys()
        assert not self._references.keys() & self._evictable.keys()
        slots = sorted([*self._free, *self._by_digest.values()])
        assert slots == list(range(self.num_slots)), "a slot was lost or shared"


class Pictures:
    """What requests hold in the slots: a chunk never covers positions of a picture that is neither
    resident nor encoded in the same plan."""

    def __init__(self, limits: RunnerLimits, totals: Totals) -> None:
        self.slots = ImageSlots(limits.image_slots)
        self._cost_tokens = limits.image_cost_tokens
        self._totals = totals

    def hold(self, request: Request, count: int, draft: Draft) -> int:
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
            encode = not self.slots.resident(image.digest)
            image_slot = self.slots.acquire(image.digest)
            request.held_images[index] = image_slot
            if encode:
                draft.encode(request, index, image_slot, self._cost_tokens)
                count = min(count, draft.budget)
            self._totals.count_image(encoded=encode)
        return count

    def _can_hold(self, digest: bytes, draft: Draft) -> bool:
        return self.slots.resident(digest) or (
            self.slots.room and draft.can_encode(self._cost_tokens)
        )

    def can_start(self, request: Request, position: int, draft: Draft) -> bool:
        """Whether the first position to compute could be computed now: false inside a picture that
        is neither resident nor can be encoded in this step."""
        return all(
            self._can_hold(image.digest, draft)
            for image in request.images
            if image.offset <= position < image.offset + image.length
        )

    def scatter(self, request: Request, start: int, count: int, draft: Draft) -> None:
        """Tells which of the positions just added take picture embeddings."""
        for index, image_slot in request.held_images.items():
            image = request.images[index]
            first = max(start, image.offset)
            end = min(start + count, image.offset + image.length)
            if first < end:
                draft.scatter(request, first, image_slot, first - image.offset, end - first)

    def release(self, request: Request, computed: int | None = None) -> None:
        """Gives up the pictures that end before position `computed`; all of them without it."""
        for index in list(request.held_images):
            image = request.images[index]
            if computed is None or image.offset + image.length <= computed:
                del request.held_images[index]
                self.slots.release(image.digest)
