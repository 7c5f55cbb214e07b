"""Finds processes that stand still, and tells which one it is.

The engine's loop waits for the device, and so for every other rank; the loops of the others wait
for nobody and turn several times a second. So when several pulses have stopped, it is one of the
others that has stopped, and the engine that waits for it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from server.children import Children
from server.heartbeat import Heartbeat

ENGINE_NAME = "engine"

LOOKS_PER_TIMEOUT = 20
"""How often to look within the time-out."""

ENGINE_PATIENCE = 1.1
"""How much more time the engine is given: it may wait for a rank of this or another host, whose
watchdog shall be the first to find it."""

SILENT_S = 2.0
"""Whoever waits for no rank and has not turned for so long is mentioned when the group fails."""

log = logging.getLogger(__name__)


class Watchdog:
    """Watches processes of one host.

    Args:
        units: names of processes that end together; the engine's is `ENGINE_NAME`.
        timeout_s: longest standstill.
    """

    def __init__(self, run_dir: Path, units: Sequence[Iterable[str]], timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._units = [{name: Heartbeat(run_dir, name) for name in names} for names in units]
        self._pulses = {name: pulse for unit in self._units for name, pulse in unit.items()}
        self.look_s = timeout_s / LOOKS_PER_TIMEOUT

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pulse in self._pulses.values():
            pulse.__exit__()

    def abort_stopped(self, children: Children) -> None:
        """Ends a process that has stopped; what follows is what follows any death."""
        name = self.stopped()
        if name is not None and name in children:
            children.abort(name)

    def stopped(self) -> str | None:
        """The name of a process that has stood still for too long, once; it is logged."""
        ages_s = {name: pulse.age_s for name, pulse in self._pulses.items()}
        still = [name for name, age_s in ages_s.items() if age_s >= self._patience_s(name)]
        if not still:
            return None
        name = next((name for name in still if name != ENGINE_NAME), ENGINE_NAME)
        log.error("%s has stood still for %.0f s: aborted", name, ages_s[name])
        for pulse in next(unit for unit in self._units if name in unit).values():
            pulse.forget()
        return name

    def _patience_s(self, name: str) -> float:
        return self._timeout_s * (ENGINE_PATIENCE if name == ENGINE_NAME else 1)

    def mention_silent(self) -> None:
        """Logs who stood still when the ranks' group failed: others may have failed for it."""
        for name, pulse in self._pulses.items():
            if name != ENGINE_NAME and pulse.age_s >= SILENT_S:
                log.error("%s has stood still for %.0f s", name, pulse.age_s)

    def forget_absent(self, children: Children) -> None:
        """Those that are not running have no pulse."""
        for name, pulse in self._pulses.items():
            if name not in children:
                pulse.forget()

    def forget(self) -> None:
        """Nobody is running."""
        for pulse in self._pulses.values():
            pulse.forget()
