from __future__ import annotations

import pytest

from server.engine.images import ImageSlots


def test_a_released_picture_stays_resident_until_its_room_is_needed() -> None:
    images = ImageSlots(1)
    slot = images.acquire(b"a")
    full = not images.room
    images.release(b"a")
    assert full
    assert images.room
    assert images.resident(b"a")
    assert images.acquire(b"a") == slot
    images.release(b"a")
    assert images.acquire(b"b") == slot
    assert not images.resident(b"a")
    images.check_integrity([b"b"])


def test_the_picture_released_first_goes_first() -> None:
    images = ImageSlots(2)
    for digest in (b"a", b"b"):
        images.acquire(digest)
    images.release(b"b")
    images.release(b"a")
    images.acquire(b"c")
    assert images.resident(b"a")
    assert not images.resident(b"b")


def test_a_slot_is_shared_by_all_who_read_the_picture() -> None:
    images = ImageSlots(2)
    assert images.acquire(b"a") == images.acquire(b"a")
    images.check_integrity([b"a", b"a"])
    images.release(b"a")
    assert images.used == 1
    with pytest.raises(AssertionError):
        images.check_integrity([])
