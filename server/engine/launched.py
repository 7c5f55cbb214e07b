"""Steps on their way: who has a row in what was launched and has not been read back."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest

from server.engine.plan import StepResult
from server.engine.request import Request, Status
from server.messages import TokenLogprob

Drawn = tuple[int, TokenLogprob | None]


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
    guesses: Sequence[int] = ()

    @property
    def masked(self) -> bool:
        return self.samples and self.request.matcher is not None

    def mask(self) -> bytes | None:
        """What a masked row may draw, once all earlier tokens are known."""
        if self.request.matcher is None or self.request.status is Status.FINISHED:
            return None
        return self.request.matcher.mask()

    def confirmed(self, drawn: Sequence[Drawn]) -> int:
        """How many guesses were right, each after the one before it."""
        pairs = zip(self.guesses, drawn, strict=False)
        wrong = (index for index, (guess, (token, _)) in enumerate(pairs) if guess != token)
        return next(wrong, len(self.guesses))


class Launched:
    """Rows of launched steps, the oldest step first."""

    def __init__(self) -> None:
        self._steps: deque[tuple[int, list[LaunchedRow]]] = deque()

    def __len__(self) -> int:
        return len(self._steps)

    def add(self, step: int, rows: list[LaunchedRow]) -> None:
        assert not self.guessing, "nobody knows where the next step begins"
        self._steps.append((step, rows))

    @property
    def guessing(self) -> bool:
        """Whether a row has guesses."""
        return bool(self._steps) and any(row.guesses for row in self._steps[-1][1])

    @property
    def oldest(self) -> list[LaunchedRow]:
        return self._steps[0][1]

    def take(self, result: StepResult) -> list[tuple[LaunchedRow, list[Drawn]]]:
        """Rows of the oldest step, which is over, and what each has drawn."""
        step, rows = self._steps.popleft()
        assert step == result.step
        drawn: Iterator[Drawn] = iter(zip_longest(result.token_ids, result.logprobs))
        return [(row, list(islice(drawn, row.samples + len(row.guesses)))) for row in rows]

    def forget(self) -> None:
        """What was launched does not count."""
        self._steps.clear()

    def requests(self) -> list[Request]:
        """Whoever is named, as often as that."""
        return [row.request for _, rows in self._steps for row in rows]
