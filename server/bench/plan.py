"""What is to be run: one `Run` from flags, or several from a TOML file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

import msgspec

ScenarioName = Literal["text", "long", "picture", "picture-repeated", "multi-turn", "json"]


class BenchError(Exception):
    """Something to tell the person who started the benchmark."""


class Run(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A scenario under one or several loads; each load is a point of the result."""

    name: str = ""
    scenario: ScenarioName = "text"
    prompt_tokens: int | None = None
    """Of the text, about; as the server counts them. None: the scenario's own."""
    prefix_tokens: int = 0
    """How much of that all requests of the run begin with."""
    identical: bool = False
    """Every request is the same one, also the warm-up."""
    output_tokens: int = 64
    rates: list[float] = []
    """Open loop: requests a second, arriving at random."""
    concurrencies: list[int] = []
    """Closed loop: requests that are open at any time."""
    requests: int = 64
    """In each point, without the warm-up."""
    warmup: int = 4
    turns: int = 4
    """Of a conversation."""
    natural_stops: bool = False
    """Answers end where the model ends them; otherwise all have `output_tokens` tokens."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("output_tokens", "requests", "turns"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1")
        if any(load <= 0 for load in (*self.rates, *self.concurrencies)):
            raise ValueError("`rates` and `concurrencies` must be positive")

    @property
    def title(self) -> str:
        return self.name or self.scenario

    def loads(self) -> list[Load]:
        """One request at a time where nothing else is asked for."""
        loads = [Load("open", rate) for rate in self.rates]
        loads += [Load("closed", count) for count in self.concurrencies]
        return loads or [Load("closed", 1)]


class Load(msgspec.Struct, frozen=True):
    """How requests come."""

    kind: Literal["open", "closed"]
    value: float

    def __str__(self) -> str:
        return f"{self.value:g} req/s" if self.kind == "open" else f"c={self.value:g}"


class _File(msgspec.Struct, forbid_unknown_fields=True):
    run: list[Run]


def read_plan(path: Path) -> list[Run]:
    """The `[[run]]` tables of a TOML file.

    Raises:
        BenchError: names the field that is wrong.
    """
    try:
        return msgspec.convert(tomllib.loads(path.read_text("utf-8")), _File).run
    except OSError as error:
        raise BenchError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise BenchError(f"{path}: {error}") from None
