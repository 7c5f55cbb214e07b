"""Steps on their way: who has a row in what was launched and has not been read back."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from server.engine.request import Request, Status


@dataclass(frozen=True, slots=True)
class LaunchedRow:
    """A row of a launched plan: the positions of `request` before `end` are computed by it."""

    request: Request
    end: int
    samples: bool
    prompt: bool
    """It is more than one token."""
    encodes: bool
    """Pictures of the request are encoded for it."""

    @property
    def masked(self) -> bool:
        return self.samples and self.request.matcher is not None

    def mask(self) -> bytes | None:
        """What a masked row may draw, once all earlier tokens are known."""
        if self.request.matcher is None or self.request.status is Status.FINISHED:
            return None
        return self.request.matcher.mask()


class Launched:
    """Rows of launched steps, the oldest step first."""

    def __init__(self) -> None:
        self._steps: deque[tuple[int, list[LaunchedRow]]] = deque()

    def __len__(self) -> int:
        return len(self._steps)

    def add(self, step: int, rows: list[LaunchedRow]) -> None:
        self._steps.append((step, rows))

    @property
    def oldest(self) -> list[LaunchedRow]:
        return self._steps[0][1]

    def take(self, step: int) -> list[LaunchedRow]:
        """Rows of the oldest step, which is over."""
        oldest, rows = self._steps.popleft()
        assert oldest == step
        return rows

    def forget(self) -> None:
        """What was launched does not count."""
        self._steps.clear()

    def requests(self) -> list[Request]:
        """Whoever is named, as often as that."""
        return [row.request for _, rows in self._steps for row in rows]
