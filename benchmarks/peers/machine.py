"""What a measurement must know of the machine: who used its cores, and how much memory."""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil


class Cores:
    """CPU time since it was made, of the processes that count as ours and of all others.

    Args:
        server: its children count too.
    """

    def __init__(self, server: psutil.Process) -> None:
        self._server = server
        self._began_s = time.monotonic()
        self._busy_s = _busy_s()
        self._ours_s = self._ours()

    def foreign(self) -> float:
        """Cores that others used, on average: other processes, and other machines on the host."""
        passed_s = time.monotonic() - self._began_s
        others_s = _busy_s() - self._busy_s - (self._ours() - self._ours_s)
        return max(0.0, others_s / passed_s)

    def _ours(self) -> float:
        own_s: float = sum(psutil.Process().cpu_times()[:2])
        return spent_s(self._server) + own_s


def _busy_s() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq + times.steal)


def spent_s(server: psutil.Process) -> float:
    """CPU time of a process and its children so far."""
    return float(sum(sum(one.cpu_times()[:2]) for one in tree(server)))


def memory_bytes(server: psutil.Process) -> int:
    """Resident, a page that processes share counted once."""
    return int(sum(one.memory_full_info().pss for one in tree(server)))


def idle_cores(server: psutil.Process, seconds: float) -> float:
    """Cores that a server uses while nobody asks it anything."""
    before_s = spent_s(server)
    time.sleep(seconds)
    return (spent_s(server) - before_s) / seconds


def tree(server: psutil.Process) -> list[psutil.Process]:
    return [server, *server.children(recursive=True)]


def wait_until(look: Callable[[], bool], seconds: float) -> bool:
    deadline_s = time.monotonic() + seconds
    while not look():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.1)
    return True
