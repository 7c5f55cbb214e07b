"""Where picture embeddings live on the device: a fixed set of slots, found by digest.

A slot is referenced while requests have uncomputed positions inside its picture; after that it
stays resident for the next request with the same picture until its room is needed. Whoever finds a
picture resident need not encode it, also when the encoding is part of the very plan being made.
"""

from __future__ import annotations

from collections.abc import Iterable


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
