"""Responses that were asked to be kept, for GET and `previous_response_id`, in the memory of this
process and within bounds: so many, so long, so many bytes.

Each belongs to the API key that made it, and for every other key it does not exist.

What does not fit displaces what was used least recently. Everything is kept as JSON: its size is
known, and nobody can change it. Items of one conversation are shared by its responses but counted
for each, so the true size is never above the limit.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec


@dataclass(frozen=True, slots=True)
class StoredResponse:
    response: bytes
    """The response object."""
    input_items: tuple[bytes, ...]
    """Everything that the answer was given to, former responses included, oldest first."""
    output_items: tuple[bytes, ...]
    expires_at: float

    @property
    def size_bytes(self) -> int:
        kept = (self.response, *self.input_items, *self.output_items)
        return sum(map(len, kept))

    @property
    def conversation(self) -> tuple[bytes, ...]:
        """What a next response goes on after."""
        return self.input_items + self.output_items


class ResponseStore:
    """
    Args:
        clock: in seconds.
    """

    def __init__(
        self,
        entries_max: int,
        ttl_s: float,
        bytes_max: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._entries_max = entries_max
        self._ttl_s = ttl_s
        self._bytes_max = bytes_max
        self._clock = clock
        self._entries: OrderedDict[tuple[str, str], StoredResponse] = OrderedDict()
        """By owner and id, the least recently used one first."""
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, owner: str, response: Mapping[str, Any], input_items: Sequence[bytes]) -> None:
        """Keeps a response, unless it alone is larger than everything may be.

        Args:
            owner: name of the API key that made it.
        """
        entry = StoredResponse(
            msgspec.json.encode(response),
            tuple(input_items),
            tuple(map(msgspec.json.encode, response["output"])),
            self._clock() + self._ttl_s,
        )
        if entry.size_bytes > self._bytes_max:
            return
        self._entries[owner, response["id"]] = entry
        self.size_bytes += entry.size_bytes
        self._drop_expired()
        while len(self) > self._entries_max or self.size_bytes > self._bytes_max:
            self.delete(*next(iter(self._entries)))

    def get(self, owner: str, id: str) -> StoredResponse | None:
        """None for one that was never kept, not until now, or for somebody else."""
        self._drop_expired()
        entry = self._entries.get((owner, id))
        if entry is not None:
            self._entries.move_to_end((owner, id))
        return entry

    def delete(self, owner: str, id: str) -> bool:
        """Whether there was one of this owner."""
        entry = self._entries.pop((owner, id), None)
        if entry is not None:
            self.size_bytes -= entry.size_bytes
        return entry is not None

    def _drop_expired(self) -> None:
        now = self._clock()
        for key in [key for key, entry in self._entries.items() if entry.expires_at <= now]:
            self.delete(*key)
