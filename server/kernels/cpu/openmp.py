"""The library whose threads torch computes with, as compiled code calls it.

Each thread that starts parallel work has a team of its own. They wait awake for the next operation,
but hardly while there are more threads in all teams than cores: then each operation wakes them up
anew, which takes longer than most operations.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import torch

SOFT = 1
"""Threads end and come again when they are needed."""


def library() -> ctypes.CDLL | None:
    """GNU OpenMP as torch has loaded it: another copy would have other teams. None where torch was
    built with something else."""
    for path in Path(torch.__file__).parent.glob("lib/libgomp*.so*"):
        try:
            return ctypes.CDLL(str(path), os.RTLD_NOLOAD | os.RTLD_NOW)
        except OSError:
            continue
    return None


def disband() -> None:
    """Ends the team of the calling thread, which has no more parallel work to do."""
    if (found := library()) is not None:
        found.omp_pause_resource_all(SOFT)
