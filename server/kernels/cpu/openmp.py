"""The library whose threads torch computes with, as compiled code calls it."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import torch


def library() -> ctypes.CDLL | None:
    """GNU OpenMP as torch has loaded it: another copy would have other teams. None where torch was
    built with something else."""
    for path in Path(torch.__file__).parent.glob("lib/libgomp*.so*"):
        try:
            return ctypes.CDLL(str(path), os.RTLD_NOLOAD | os.RTLD_NOW)
        except OSError:
            continue
    return None
