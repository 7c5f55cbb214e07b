"""The paged KV cache as bookkeeping: which block holds what, and for how many requests.

A block is free (content meaningless), referenced (in at least one block table) or evictable (sealed
under a prefix key and in no table, kept until the room is needed). A sealed block never changes:
its key chains everything that its keys and values depend on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence


class BlockPool:
    """`num_blocks` blocks, numbered from 0."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._free = deque(range(num_blocks))
        self._references = [0] * num_blocks
        self._keys: list[bytes | None] = [None] * num_blocks
        self._by_key: dict[bytes, int] = {}
        self._evictable: dict[int, None] = {}  # in the order of release, oldest first

    @property
    def available(self) -> int:
        """Blocks that can be allocated now."""
        return len(self._free) + len(self._evictable)

    @property
    def used(self) -> int:
        """Blocks in at least one block table."""
        return self.num_blocks - self.available

    def match(self, keys: Iterable[bytes]) -> list[int]:
        """Blocks of the longest run of `keys`, from the first on, that is cached."""
        blocks = []
        for key in keys:
            block = self._by_key.get(key)
            if block is None:
                break
            blocks.append(block)
        return blocks

    def unreferenced(self, blocks: Iterable[int]) -> int:
        """How many of these cached blocks `acquire` would take out of what is available."""
        return sum(self._references[block] == 0 for block in blocks)

    def acquire(self, blocks: Iterable[int]) -> None:
        """Adds one reference to each of some cached blocks."""
        for block in blocks:
            self._references[block] += 1
            self._evictable.pop(block, None)

    def allocate(self, count: int) -> list[int]:
        """Takes `count` blocks, which must be available; forgets cached ones only when needed,
        those first that were released first."""
        return [self._take() for _ in range(count)]

    def _take(self) -> int:
        if self._free:
            block = self._free.popleft()
        else:
            block = next(iter(self._evictable))
            del self._evictable[block]
            key = self._keys[block]
            assert key is not None
            del self._by_key[key]
            self._keys[block] = None
        self._references[block] = 1
        return block

    def seal(self, block: int, key: bytes) -> None:
        """Makes a full block findable. A block whose content is already cached elsewhere stays
        private to its request."""
        if key not in self._by_key:
            self._keys[block] = key
            self._by_key[key] = block

    def release(self, blocks: Sequence[int]) -> None:
        """Drops one reference each; the end of a table becomes evictable before its beginning,
        because a prefix is of no use without what comes before."""
        for block in reversed(blocks):
            self._references[block] -= 1
            if self._references[block] == 0:
                if self._keys[block] is None:
                    self._free.append(block)
                else:
                    self._evictable[block] = None

    def forget(self) -> None:
        """Makes every block free; no table holds one."""
        assert not any(self._references)
        self._free += self._evictable
        self._evictable.clear()
        self._by_key.clear()
        self._keys = [None] * self.num_blocks

    def check_integrity(self, tables: Iterable[Sequence[int]]) -> None:
        """Asserts the invariants against the block tables that exist."""
        counts = [0] * self.num_blocks
        for table in tables:
            for block in table:
                counts[block] += 1
        assert counts == self._references, "a reference was lost or invented"
        free, evictable = set(self._free), set(self._evictable)
        assert len(free) == len(self._free), "a block is free twice"
        referenced = {block for block, count in enumerate(counts) if count}
        assert len(free) + len(evictable) + len(referenced) == self.num_blocks
        assert free | evictable | referenced == set(range(self.num_blocks))
        sealed = {block: key for block, key in enumerate(self._keys) if key is not None}
        assert {key: block for block, key in sealed.items()} == self._by_key
        assert evictable <= sealed.keys() and not free & sealed.keys()
