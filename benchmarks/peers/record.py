"""What the runs gave, as a file that later runs add to."""

from __future__ import annotations

from pathlib import Path

import msgspec

from server.bench.summary import Summary


class Row(msgspec.Struct, frozen=True):
    """One row of one server in one round."""

    title: str
    summary: Summary
    foreign: float
    """Cores that others used meanwhile, on average."""


class Pass(msgspec.Struct, frozen=True):
    """One server, started, measured and ended."""

    peer: str
    round: int
    ready_s: float
    """From the command to the first answer."""
    idle_cores: float
    memory_bytes: int
    """After all rows."""
    rows: list[Row]


class Record(msgspec.Struct):
    machine: dict[str, str]
    passes: list[Pass] = []
    floor: dict[str, float] = {}
    """Milliseconds by what torch alone did; see `floor.py`."""


def load(path: Path) -> Record | None:
    return msgspec.json.decode(path.read_bytes(), type=Record) if path.exists() else None


def save(record: Record, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(record)))
