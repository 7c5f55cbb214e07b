"""Memory of the host: how much of it this process may still take, and giving back what it does not
need.

A container and a service of systemd are confined to a control group, which ends them when they take
more, however much the machine has; https://docs.kernel.org/admin-guide/cgroup-v2.html.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class _Files:
    """Of a version of control groups."""

    mount: str
    line: re.Pattern[str]
    """Where /proc/self/cgroup names the group."""
    limit: str
    usage: str
    reclaimable: str
    """In `memory.stat`: pages of files that go when somebody needs the memory."""


_VERSIONS = (
    _Files(
        "sys/fs/cgroup",
        re.compile(r"^0::/(.*)$", re.MULTILINE),
        "memory.max",
        "memory.current",
        "inactive_file",
    ),
    _Files(
        "sys/fs/cgroup/memory",
        re.compile(r"^\d+:(?:\w+,)*memory(?:,\w+)*:/(.*)$", re.MULTILINE),
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
)


def free_bytes(root: Path = Path("/")) -> int:
    """What the machine has and the groups of this process allow, whichever is least."""
    return max(0, min([_available(root), *_rooms(root)]))


def _available(root: Path) -> int:
    try:
        text = (root / "proc/meminfo").read_text("ascii")
    except OSError:  # not Linux
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    (kib,) = re.findall(r"^MemAvailable: *(\d+) kB$", text, re.MULTILINE)
    return 1024 * int(kib)


def _rooms(root: Path) -> Iterator[int]:
    """Of the groups around this process that have a limit, from within outwards."""
    try:
        own = (root / "proc/self/cgroup").read_text("utf-8")
    except OSError:
        return
    for files in _VERSIONS:
        if found := files.line.search(own):
            top = root / files.mount
            inner = top / found[1]
            # In a container the group that /proc names may not be visible; then `top` is it.
            for folder in (inner, *inner.parents):
                if folder.is_relative_to(top):
                    yield from _room(folder, files)


def _room(folder: Path, files: _Files) -> Iterator[int]:
    try:
        limit = (folder / files.limit).read_text("ascii").strip()
        usage = int((folder / files.usage).read_text("ascii"))
        stat = (folder / "memory.stat").read_text("ascii")
    except OSError:  # the root has no limit, and some groups do not count memory
        return
    if limit == "max":
        return
    reclaimable = re.search(rf"^{files.reclaimable} (\d+)$", stat, re.MULTILINE)
    yield int(limit) - usage + (int(reclaimable[1]) if reclaimable else 0)


def give_back() -> None:
    """Memory that was taken and freed again goes back to the system, where the C library can: what
    loading and measuring took is three hundred megabytes beside a small model's weights."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
