"""Every hostile case against the daemon itself.

After each category a normal request is right, the processes hold as much memory as before, and
nobody has asked the canary.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence

import psutil
import pytest

from tests import golden
from tests.e2e.conftest import EXACT
from tests.e2e.conversations import request
from tests.e2e.daemon import Daemon, running
from tests.hostile import fields, pictures, wire
from tests.hostile.case import Case

CASE_S = 10.0
MEMORY_GROWTH = 1.05
ROUNDS_MAX = 4

CATEGORIES: dict[str, Sequence[Case]] = {
    "http": wire.HTTP,
    "json": wire.JSON,
    "numbers": fields.NUMBERS,
    "lists": fields.LISTS,
    "meaning": fields.MEANING,
    "grammars": fields.GRAMMARS,
    "pictures": [*pictures.FILES, *pictures.PATHS],
    "bombs": pictures.BOMBS,
}


class Canary:
    """A server on this host that nobody may connect to."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.hits = 0
        threading.Thread(target=self._count, daemon=True).start()

    def _count(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.hits += 1
            connection.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture(scope="module")
def canary() -> Iterator[Canary]:
    canary = Canary()
    yield canary
    canary.close()


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    # Less than a bomb takes on any machine, more than a snapshot.
    with running(*EXACT, "--image-timeout-s", "0.2") as daemon:
        yield daemon


def ask(daemon: Daemon, data: bytes) -> tuple[int, str | None]:
    """Status and error code of what the daemon answers."""
    host, port = daemon.url.removeprefix("http://").split(":")
    answer, length = b"", b""
    with socket.create_connection((host, int(port)), timeout=CASE_S) as connection:
        connection.sendall(data)
        while piece := connection.recv(65536):
            answer += piece
            head, _, body = answer.partition(b"\r\n\r\n")
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            if length and len(body) >= int(length):
                break
    head, _, body = answer.partition(b"\r\n\r\n")
    if length:
        body = body[: int(length)]  # bytes behind a request can be another one
    error = json.loads(body).get("error") or {}
    assert len(error.get("message", "")) <= 300
    return int(head.split()[1]), error.get("code")


def wrong_answers(daemon: Daemon, cases: Sequence[Case]) -> dict[str, object]:
    """What each case that went wrong was answered, or how long it took."""
    wrong: dict[str, object] = {}
    for case in cases:
        began_at = time.monotonic()
        try:
            answer = ask(daemon, case.wire)
        except (OSError, ValueError) as failure:
            wrong[case.name] = failure
            continue
        if answer != (case.status, case.code):
            wrong[case.name] = answer
        elif (passed_s := time.monotonic() - began_at) > CASE_S:
            wrong[case.name] = f"{passed_s:.0f} s"
    return wrong


def check_normal(daemon: Daemon) -> None:
    case = golden.case("image_single")
    answer = daemon.chat(**request(case))
    assert answer["choices"][0]["token_ids"] == case["generated_ids"]


def held_bytes(daemon: Daemon) -> int:
    """Memory that the processes themselves use, what was swapped out included."""
    maps = [child.memory_full_info() for child in daemon.children().values()]
    return sum(info.uss + info.swap for info in maps)


def check_memory(daemon: Daemon, cases: Sequence[Case]) -> None:
    """Some round of the same must not need more than the one before: what leaks grows each time,
    what allocators keep does not."""
    daemon.wait_until_idle()
    held = [held_bytes(daemon)]
    for _ in range(ROUNDS_MAX):
        for case in cases:
            ask(daemon, case.wire)
        daemon.wait_until_idle()
        held.append(held_bytes(daemon))
        if held[-1] <= held[-2] * MEMORY_GROWTH:
            return
    raise AssertionError(held)


@pytest.mark.parametrize("category", CATEGORIES)
def test_category(daemon: Daemon, category: str) -> None:
    cases = CATEGORIES[category]
    assert wrong_answers(daemon, cases) == {}
    check_normal(daemon)
    check_memory(daemon, cases)


def test_addresses(daemon: Daemon, canary: Canary) -> None:
    cases = pictures.addresses(canary.port)
    assert wrong_answers(daemon, cases) == {}
    check_normal(daemon)
    check_memory(daemon, cases)
    assert canary.hits == 0


def test_addresses_where_fetching_is_allowed(canary: Canary) -> None:
    with running(*EXACT, "--allow-remote-media") as daemon:
        for case in pictures.addresses(canary.port):
            status, code = ask(daemon, case.wire)
            assert status == 400, case.name
            assert code in {"invalid_image_url", "failed_to_download_image"}, case.name
        check_normal(daemon)
    assert canary.hits == 0


def test_there_are_enough_cases_and_no_two_of_a_name(canary: Canary) -> None:
    cases = [case for group in CATEGORIES.values() for case in group]
    cases += pictures.addresses(canary.port)
    assert len(cases) >= 150
    for group in CATEGORIES.values():
        assert len({case.name for case in group}) == len(group)


def test_no_engine_died(daemon: Daemon) -> None:
    assert "ended with status" not in daemon.log
    assert all(child.status() != psutil.STATUS_ZOMBIE for child in daemon.children().values())
