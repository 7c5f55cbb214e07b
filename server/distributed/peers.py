"""Whom a rank works with: numbers and nothing else, so that whoever plans needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Peers:
    """By their numbers among all ranks, each group in its order."""

    model: Sequence[int]
    """Ranks of the same stage."""
    vision: Sequence[int]
    """Ranks that share a vision tower."""
    towers: Sequence[int]
    """One rank of each vision group."""
    previous: int | None = None
    """Hands over hidden states."""
    next: int | None = None
    """Gets them."""
    tokens_from: int | None = None
    """Of the last stage, for a rank of the first."""
    tokens_to: int | None = None
    """The other way round."""
