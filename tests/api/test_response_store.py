from __future__ import annotations

import pytest

from server.api.response_store import ResponseStore


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def store_of(clock: Clock, entries: int = 3, size_bytes: int = 10_000) -> ResponseStore:
    return ResponseStore(entries, 60.0, size_bytes, clock)


def put(store: ResponseStore, id: str, *items: bytes) -> None:
    store.put("me", {"id": id, "output": [{"id": "out"}]}, items)


def test_a_stored_response_and_its_conversation(clock: Clock) -> None:
    store = store_of(clock)
    put(store, "a", b'{"id":"in"}')
    stored = store.get("me", "a")
    assert stored is not None
    assert stored.response == b'{"id":"a","output":[{"id":"out"}]}'
    assert stored.conversation == (b'{"id":"in"}', b'{"id":"out"}')
    assert store.size_bytes == stored.size_bytes == len(b"".join(stored.conversation)) + 34


def test_nothing_is_known_of_others(clock: Clock) -> None:
    store = store_of(clock)
    assert store.get("me", "a") is None
    assert not store.delete("me", "a")


def test_the_least_recently_used_goes_first(clock: Clock) -> None:
    store = store_of(clock)
    for id in "abc":
        put(store, id)
    assert store.get("me", "a") is not None
    put(store, "d")
    assert store.get("me", "b") is None
    assert all(store.get("me", id) for id in "acd")


def test_time_ends_a_response_however_often_it_was_used(clock: Clock) -> None:
    store = store_of(clock)
    put(store, "a")
    clock.now += 59
    assert store.get("me", "a") is not None
    put(store, "b")
    clock.now += 1
    assert store.get("me", "a") is None
    assert store.get("me", "b") is not None
    assert len(store) == 1


def test_the_bytes_are_bounded(clock: Clock) -> None:
    store = store_of(clock, size_bytes=1000)
    put(store, "a", b"x" * 600)
    put(store, "b", b"x" * 600)
    assert store.get("me", "a") is None
    assert store.get("me", "b") is not None
    assert store.size_bytes <= 1000


def test_what_is_too_large_displaces_nothing(clock: Clock) -> None:
    store = store_of(clock, size_bytes=1000)
    put(store, "a")
    put(store, "b", b"x" * 1001)
    assert store.get("me", "a") is not None
    assert store.get("me", "b") is None


def test_deleting_gives_the_bytes_back(clock: Clock) -> None:
    store = store_of(clock)
    put(store, "a", b"{}")
    assert store.delete("me", "a")
    assert (len(store), store.size_bytes) == (0, 0)
    assert not store.delete("me", "a")


def test_no_entries_keep_nothing(clock: Clock) -> None:
    store = store_of(clock, entries=0)
    put(store, "a")
    assert store.get("me", "a") is None
    assert store.size_bytes == 0


def test_what_one_keeps_is_not_there_for_others(clock: Clock) -> None:
    store = store_of(clock)
    put(store, "a")
    assert store.get("you", "a") is None
    assert not store.delete("you", "a")
    assert store.get("me", "a") is not None
