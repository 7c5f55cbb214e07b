"""Files of a daemon's directory as memory that its processes share."""

from __future__ import annotations

import mmap
import os
from pathlib import Path


def map_file(path: Path, size_bytes: int) -> mmap.mmap:
    """The file's content, which is zeros where it is new; only this user may open it.

    Raises:
        OSError: the disk is full. It cannot become so later: all of the room is taken here, where a
            hole would end whoever fills it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size_bytes)
        return mmap.mmap(descriptor, size_bytes)
    finally:
        os.close(descriptor)
