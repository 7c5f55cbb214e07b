from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from server import host

GIB = 2**30
MEMINFO = f"MemTotal: {32 * GIB // 1024} kB\nMemFree: 1 kB\nMemAvailable: {16 * GIB // 1024} kB\n"
SECOND = "sys/fs/cgroup"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a file system; the machine has 64 cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    write(tmp_path, {"proc/meminfo": MEMINFO})
    return tmp_path


def write(root: Path, files: dict[str, object]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")


def test_without_groups_it_is_what_the_machine_has(root: Path) -> None:
    assert host.free_bytes(root) == 16 * GIB
    assert host.cores(root) == 64


def test_a_container_has_what_its_group_allows(root: Path) -> None:
    write(
        root,
        {
            "proc/self/cgroup": "0::/",
            f"{SECOND}/memory.max": 4 * GIB,
            f"{SECOND}/memory.current": 3 * GIB,
            f"{SECOND}/memory.stat": f"anon 5\ninactive_file {2 * GIB}\nactive_file 7",
            f"{SECOND}/cpu.max": "250000 100000",
        },
    )
    assert host.free_bytes(root) == 3 * GIB
    assert host.cores(root) == 3


@pytest.mark.parametrize(
    ("outer", "inner", "free"),
    [("max", 8 * GIB, 7 * GIB), (2 * GIB, "max", 1 * GIB), ("max", "max", 16 * GIB)],
)
def test_the_tightest_group_around_counts(
    root: Path, outer: object, inner: object, free: int
) -> None:
    write(root, {"proc/self/cgroup": "1:name=systemd:/other\n0::/a.slice/b.service"})
    for folder, limit in (("a.slice", outer), ("a.slice/b.service", inner)):
        files = {"max": limit, "current": GIB, "stat": "inactive_file 0"}
        group = f"{SECOND}/{folder}"
        write(root, {f"{group}/memory.{name}": value for name, value in files.items()})
        write(root, {f"{group}/cpu.max": "max 100000"})
    assert host.free_bytes(root) == free
    assert host.cores(root) == 64


def test_groups_of_the_first_version(root: Path) -> None:
    memory, cpu = "sys/fs/cgroup/memory", "sys/fs/cgroup/cpu"
    write(
        root,
        {
            "proc/self/cgroup": "9:cpu,cpuacct:/there\n4:memory:/unseen/here\n0::/",
            f"{memory}/memory.limit_in_bytes": 4 * GIB,
            f"{memory}/memory.usage_in_bytes": 5 * GIB,
            f"{memory}/memory.stat": f"inactive_file 1\ntotal_inactive_file {2 * GIB}",
            f"{cpu}/cpu.cfs_quota_us": "-1",
            f"{cpu}/there/cpu.cfs_quota_us": "200000",
            f"{cpu}/there/cpu.cfs_period_us": "100000",
        },
    )
    assert host.free_bytes(root) == GIB
    assert host.cores(root) == 2
    write(root, {f"{memory}/memory.stat": "total_inactive_file 0"})
    assert host.free_bytes(root) == 0


def test_this_machine_has_both() -> None:
    host.give_back()
    assert host.free_bytes() > 0
    assert 1 <= host.cores() <= len(os.sched_getaffinity(0))


CODE = r"""
import re
from pathlib import Path
import numpy
from server import host

def code_kib():
    text = Path("/proc/self/smaps").read_text()
    return sum(map(int, re.findall(r" r-xp .* /.*\n(?:.*\n){1,3}?Rss: +([0-9]+) kB", text)))

numbers = numpy.random.default_rng(0).random((99, 99))
before = code_kib(), (numbers @ numbers).sum()
host.give_back()
after = code_kib(), (numbers @ numbers).sum()
assert after[0] < before[0] / 2, (before, after)
assert after[1] == before[1]
"""


def test_code_that_the_start_alone_needed_is_given_back() -> None:
    subprocess.run([sys.executable, "-c", CODE], check=True)


FAULTS = """
import resource
import torch
from server import host

if {keep}:
    host.keep()
begun = 0
for turn in range(10):
    parts = [torch.ones(12_000_000) for _ in range(3)]
    del parts
    if turn == 5:
        begun = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begun)
"""


def test_memory_that_is_kept_is_not_taken_anew() -> None:
    kept, given_back = (
        int(subprocess.check_output([sys.executable, "-c", FAULTS.format(keep=keep)], timeout=60))
        for keep in (True, False)
    )
    assert kept < given_back / 10
