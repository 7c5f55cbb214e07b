"""A benchmark's outcome as a file: all there is to know, so that reports can be made later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from server.bench.client import Measured
from server.bench.plan import BenchError, Load, Run
from server.bench.summary import Limits, Summary

FORMAT = 1


class Point(msgspec.Struct, frozen=True):
    """One scenario under one load."""

    run: Run
    load: Load
    summary: Summary
    requests: list[Measured]

    @property
    def title(self) -> str:
        return f"{self.run.title}, {self.load}"


class Result(msgspec.Struct, frozen=True):
    server: dict[str, Any]
    """Where it was, its model and what it said of its version."""
    client: dict[str, str]
    """Versions of what measured."""
    began_at: str
    """UTC, ISO 8601."""
    limits: Limits
    points: list[Point]
    format: int = FORMAT


def save(result: Result, path: Path) -> None:
    path.write_bytes(msgspec.json.encode(result))


def load(path: Path) -> Result:
    """Raises:
    BenchError: the file is none of ours.
    """
    try:
        result = msgspec.json.decode(path.read_bytes(), type=Result)
    except OSError as error:
        raise BenchError(f"{path}: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise BenchError(f"{path} is no result of `internvl-serve bench`: {error}") from None
    if result.format != FORMAT:
        raise BenchError(f"{path} has format {result.format}; this version reads {FORMAT}")
    return result
