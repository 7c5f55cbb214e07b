"""What of the host this process may use: cores and memory.

A container and a service of systemd are confined to a control group, however much the machine has:
with more threads than their share of time they stand still most of the time, and with more memory
they are ended. https://docs.kernel.org/admin-guide/cgroup-v2.html
"""

from __future__ import annotations

import ctypes
import mmap
import os
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")

_KEEPING = (
    (-1, -1),  # M_TRIM_THRESHOLD: nothing is given back
    (-2, 2**28),  # M_TOP_PAD: more is taken in large parts
    (-4, 0),  # M_MMAP_MAX: nothing has pages of its own
    (-8, 1),  # M_ARENA_MAX: threads share what there is
)
"""Options of mallopt(3)."""

_CODE = re.compile(
    r"^([0-9a-f]+)-([0-9a-f]+) r-xp .* /(?!memfd:).*(?<!\(deleted\))\n"
    r"(?:\w+: .*\n)*?Anonymous: +0 kB$",
    re.MULTILINE,
)
"""Begin and end, in /proc/self/smaps, of pages that are as their file has them."""

_UNIFIED = r"0:"
"""How /proc/self/cgroup begins the line of the second version; a controller of the first one stands
between the colons."""


def cores(root: Path = ROOT) -> int:
    """How many threads can compute at once: the cores that the process may run on, and no more than
    its groups give time for."""
    shares = [len(os.sched_getaffinity(0))]
    for folder in _groups(root, _UNIFIED, "sys/fs/cgroup"):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        shares += _share(quota, period)
    for folder in _groups(root, _controller("cpu"), "sys/fs/cgroup/cpu"):
        shares += _share(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))
    return min(shares)


def free_bytes(root: Path = ROOT) -> int:
    """Memory: what the machine has and the groups allow, whichever is least. Pages of files that
    go when somebody needs them count as free."""
    rooms = [_available(root)]
    for folder in _groups(root, _UNIFIED, "sys/fs/cgroup"):
        rooms += _room(folder, "memory.max", "memory.current", "inactive_file")
    for folder in _groups(root, _controller("memory"), "sys/fs/cgroup/memory"):
        files = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        rooms += _room(folder, *files)
    return max(0, min(rooms))


def give_back() -> None:
    """What the start alone has needed goes back to the system: memory that was freed again, three
    hundred megabytes beside a small model's weights, if the C library is GNU's; and the code of
    libraries, a hundred more. Code that runs again comes from what the system keeps of its file."""
    library = ctypes.CDLL(None)
    if trim := getattr(library, "malloc_trim", None):
        trim(0)
    for begin, end in _CODE.findall(_read(Path("/proc/self/smaps"))):
        address, size_bytes = int(begin, 16), int(end, 16) - int(begin, 16)
        library.madvise(ctypes.c_void_p(address), ctypes.c_size_t(size_bytes), mmap.MADV_DONTNEED)


def keep() -> None:
    """From here on what is freed stays with the process, if the C library is GNU's: for work that
    takes and frees the same gigabytes again and again, and would have them as new pages each time,
    filled with zeros. Called before there are other threads."""
    if option := getattr(ctypes.CDLL(None), "mallopt", None):
        for parameter, value in _KEEPING:
            option(parameter, value)


def _groups(root: Path, hierarchy: str, mount: str) -> Iterator[Path]:
    """Folders of the groups around this process, from within outwards."""
    line = re.compile(rf"^{hierarchy}:/(.*)$", re.MULTILINE)
    if found := line.search(_read(root / "proc/self/cgroup")):
        top = root / mount
        inner = top / found[1]
        # In a container the group that /proc names may not be visible; then `top` is it.
        yield from (folder for folder in (inner, *inner.parents) if folder.is_relative_to(top))


def _controller(name: str) -> str:
    return rf"\d+:(?:[\w=]+,)*{name}(?:,[\w=]+)*"


def _share(quota: str, period: str) -> list[int]:
    """Cores, rounded up; a quota of `max` or -1 is none."""
    if quota.isdigit() and period.isdigit():
        return [-(-int(quota) // int(period))]
    return []


def _room(folder: Path, limit_file: str, usage_file: str, reclaimable: str) -> list[int]:
    limit, usage = _read(folder / limit_file), _read(folder / usage_file)
    if not (limit.isdigit() and usage.isdigit()):
        return []
    stat = _read(folder / "memory.stat")
    found = re.search(rf"^{reclaimable} (\d+)$", stat, re.MULTILINE)
    return [int(limit) - int(usage) + (int(found[1]) if found else 0)]


def _available(root: Path) -> int:
    meminfo = _read(root / "proc/meminfo")
    if found := re.search(r"^MemAvailable: *(\d+) kB$", meminfo, re.MULTILINE):
        return 1024 * int(found[1])
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _read(path: Path) -> str:
    """Nothing where there is no such file: the outermost group has no limits, and some groups do
    not count."""
    try:
        return path.read_text("utf-8").strip()
    except OSError:
        return ""
