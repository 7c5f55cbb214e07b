"""What a process that decodes strangers' files gives up before it sees the first of them.

Decoders are the largest programs that a stranger can make the server run. So they run where nothing
is lost when they fail: with a bound on memory, without the right to write files.
"""

from __future__ import annotations

import os
import resource
import signal

OUT_OF_TIME = signal.SIGPROF


def give_up_rights(memory_bytes_max: int, *, lower_priority: bool = True) -> None:
    """Takes from this process what it does not need.

    Args:
        memory_bytes_max: address space, what is loaded already included.
        lower_priority: give way to everything else on the machine.
    """
    if lower_priority:
        os.nice(5)
    for what, limit in (
        (resource.RLIMIT_AS, memory_bytes_max),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (limit, limit))


def bound_processor_time(seconds: float) -> None:
    """Lets the system end this process by `OUT_OF_TIME` when it has computed for so long from now
    on. Time in which others had the processor does not count."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
