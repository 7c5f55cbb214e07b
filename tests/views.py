"""What metrics read of an engine, without an engine."""

from __future__ import annotations

from dataclasses import dataclass, field

from server.messages import Gauges, Ready


@dataclass
class View:
    latest: Gauges = field(default_factory=Gauges)
    ready: Ready | None = None
    restarts: int = 0
