"""Two hosts: the same answers, and the loss of one is noticed, named and mended."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests import golden
from tests.e2e.conftest import EXACT
from tests.e2e.conversations import request
from tests.e2e.daemon import MODEL, START_S, Daemon, end
from tests.e2e.namespaces import TwoHosts, run_in, two_hosts
from tests.e2e.streams import check_answer, check_cut, start_streams
from tests.e2e.test_golden import CASES, check

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def hosts() -> Iterator[TwoHosts]:
    with two_hosts() as hosts:
        yield hosts


def group_flags(hosts: TwoHosts) -> list[str]:
    flags = ["--nnodes", "2", "--master-addr", hosts.head_address, "--max-restarts", "9"]
    return [*EXACT, *flags, "--tensor-parallel-size", "2", "--collective-timeout-s", "30"]


def start_worker(hosts: TwoHosts, log: Path, *flags: str) -> subprocess.Popen[bytes]:
    command = [*run_in(hosts.worker), sys.executable, "-P", "-m", "server", "serve"]
    command += ["--model", str(golden.CHECKPOINT), "--served-model-name", MODEL]
    command += ["--check-integrity", "--node-rank", "1", *group_flags(hosts), *flags]
    with log.open("ab") as out:
        return subprocess.Popen(command, stderr=out)


@contextmanager
def group(
    hosts: TwoHosts, log: Path, *flags: str
) -> Iterator[tuple[Daemon, subprocess.Popen[bytes]]]:
    """A head and a worker, ready."""
    worker = start_worker(hosts, log, *flags)
    try:
        head_flags = ["--host", hosts.http_address, *group_flags(hosts), *flags]
        with Daemon(*head_flags, before=run_in(hosts.head)) as daemon:
            daemon.wait_until_ready()
            yield daemon, worker
    finally:
        end(worker)


def test_two_hosts_give_the_authors_answers_and_end_together(
    hosts: TwoHosts, tmp_path: Path
) -> None:
    with group(hosts, tmp_path / "log") as (daemon, worker):
        daemon.logged(rf"node 1 \({hosts.worker_address}\) joined")
        for case in CASES[::4]:
            check(daemon.chat(**request(case)), case)
        daemon.process.terminate()
        assert daemon.process.wait(timeout=20) == 0
        assert worker.wait(timeout=20) == 0
    assert "the head ends" in (tmp_path / "log").read_text()


def test_a_killed_rank_is_named_and_replaced(hosts: TwoHosts, tmp_path: Path) -> None:
    with group(hosts, tmp_path / "log") as (daemon, worker):
        (rank,) = psutil.Process(worker.pid).children()
        streams, threads = start_streams(daemon, 4)
        rank.kill()
        for lines, thread in zip(streams, threads, strict=True):
            thread.join(timeout=5)
            assert not thread.is_alive()
            check_cut(lines, "engine_died")
        daemon.logged(rf"rank-1 \(pid {rank.pid}\) was ended by SIGKILL on node 1")
        daemon.wait_until_ready()
        check_answer(daemon)


def test_a_rank_that_stops_is_found_by_its_host(hosts: TwoHosts, tmp_path: Path) -> None:
    with group(hosts, tmp_path / "log", "--step-timeout-s", "4") as (daemon, worker):
        (rank,) = psutil.Process(worker.pid).children()
        streams, threads = start_streams(daemon, 2)
        rank.suspend()
        for lines, thread in zip(streams, threads, strict=True):
            thread.join(timeout=20)
            check_cut(lines, "engine_died")
        log = (tmp_path / "log").read_text()
        assert re.search(r"rank-1 has stood still for \d+ s: aborted", log)
        daemon.wait_until_ready()
        check_answer(daemon)


def test_a_killed_worker_is_named_and_may_join_again(hosts: TwoHosts, tmp_path: Path) -> None:
    with group(hosts, tmp_path / "log") as (daemon, worker):
        streams, threads = start_streams(daemon, 2)
        worker.kill()
        worker.wait()
        for lines, thread in zip(streams, threads, strict=True):
            thread.join(timeout=5)
            assert not thread.is_alive()
            check_cut(lines, "engine_died")
        daemon.logged(rf"node 1 \({hosts.worker_address}\) is lost")
        another = start_worker(hosts, tmp_path / "log")
        try:
            daemon.wait_until_ready()
            check_answer(daemon)
        finally:
            end(another)


def test_a_worker_without_a_head_waits_and_then_says_so(hosts: TwoHosts, tmp_path: Path) -> None:
    worker = start_worker(hosts, tmp_path / "log", "--join-timeout-s", "1")
    assert worker.wait(timeout=START_S) == 75
    said = (tmp_path / "log").read_text()
    assert f"waiting for the head at {hosts.head_address}" in said
    assert "the head did not come" in said


def test_a_host_with_other_settings_is_refused(hosts: TwoHosts, tmp_path: Path) -> None:
    worker = start_worker(hosts, tmp_path / "log", "--max-num-seqs", "7")
    try:
        flags = ["--host", hosts.http_address, *group_flags(hosts)]
        with Daemon(*flags, before=run_in(hosts.head)) as daemon:
            assert worker.wait(timeout=START_S) == 1
            daemon.logged("waiting for node 1 of 2 hosts")
    finally:
        end(worker)
    assert "it has --max-num-seqs 7, the head 32" in (tmp_path / "log").read_text()


def test_a_host_that_goes_away_is_noticed(hosts: TwoHosts, tmp_path: Path) -> None:
    try:
        with group(hosts, tmp_path / "log") as (daemon, _):
            streams, threads = start_streams(daemon, 1)
            hosts.cut()
            begin_s = time.monotonic()
            threads[0].join(timeout=25)
            assert time.monotonic() - begin_s < 20
            check_cut(streams[0], "engine_died")
            daemon.logged(rf"node 1 \({hosts.worker_address}\) is lost: silent for 10 s")
    finally:
        hosts.mend()
