from __future__ import annotations

from pathlib import Path

import pytest

from server.runner.host_memory import free_bytes, give_back

GIB = 2**30
MEMINFO = f"MemTotal: {32 * GIB // 1024} kB\nMemFree: 1 kB\nMemAvailable: {16 * GIB // 1024} kB\n"


def write(root: Path, files: dict[str, object]) -> None:
    for name, content in {"proc/meminfo": MEMINFO, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")


def test_without_groups_it_is_what_the_machine_has(tmp_path: Path) -> None:
    write(tmp_path, {})
    assert free_bytes(tmp_path) == 16 * GIB


def test_a_container_has_what_its_group_allows(tmp_path: Path) -> None:
    group = "sys/fs/cgroup"
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/",
            f"{group}/memory.max": 4 * GIB,
            f"{group}/memory.current": 3 * GIB,
            f"{group}/memory.stat": f"anon 5\ninactive_file {2 * GIB}\nactive_file 7",
        },
    )
    assert free_bytes(tmp_path) == 3 * GIB


@pytest.mark.parametrize(
    ("outer", "inner", "free"),
    [("max", 8 * GIB, 7 * GIB), (2 * GIB, "max", 1 * GIB), ("max", "max", 16 * GIB)],
)
def test_the_tightest_group_around_counts(
    tmp_path: Path, outer: object, inner: object, free: int
) -> None:
    write(tmp_path, {"proc/self/cgroup": "1:name=systemd:/other\n0::/a.slice/b.service"})
    for folder, limit in (("a.slice", outer), ("a.slice/b.service", inner)):
        group = f"sys/fs/cgroup/{folder}"
        files = {"max": limit, "current": GIB, "stat": "inactive_file 0"}
        write(tmp_path, {f"{group}/memory.{name}": value for name, value in files.items()})
    assert free_bytes(tmp_path) == free


def test_groups_of_the_first_version(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/memory"
    write(
        tmp_path,
        {
            "proc/self/cgroup": "9:cpu,cpuacct:/\n4:memory:/unseen/here\n0::/",
            f"{group}/memory.limit_in_bytes": 4 * GIB,
            f"{group}/memory.usage_in_bytes": 5 * GIB,
            f"{group}/memory.stat": f"inactive_file 1\ntotal_inactive_file {2 * GIB}",
        },
    )
    assert free_bytes(tmp_path) == GIB
    write(tmp_path, {f"{group}/memory.stat": "total_inactive_file 0"})
    assert free_bytes(tmp_path) == 0


def test_this_machine_has_memory() -> None:
    give_back()
    assert free_bytes() > 0
