"""What is fuzzed: a function of bytes that raises nothing but what is a bug, and where to begin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    name: str
    try_one: Callable[[bytes], None]
    """An exception is a bug."""
    seeds: Sequence[bytes] = (b"",)
