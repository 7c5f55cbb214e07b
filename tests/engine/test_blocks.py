from __future__ import annotations

import pytest

from server.engine.blocks import BlockPool


def test_a_sealed_block_is_found_until_its_room_is_needed() -> None:
    pool = BlockPool(2)
    table = pool.allocate(2)
    pool.seal(table[0], b"first")
    pool.release(table)
    assert pool.available == 2
    assert pool.match([b"first", b"second"]) == [table[0]]
    pool.check_integrity([])

    pool.allocate(2)
    assert pool.match([b"first"]) == []


def test_a_run_ends_at_the_first_missing_key() -> None:
    pool = BlockPool(3)
    table = pool.allocate(3)
    pool.seal(table[0], b"a")
    pool.seal(table[2], b"c")
    assert pool.match([b"a", b"b", b"c"]) == [table[0]]


def test_the_end_of_a_table_is_evicted_before_its_beginning() -> None:
    pool = BlockPool(2)
    table = pool.allocate(2)
    pool.seal(table[0], b"a")
    pool.seal(table[1], b"b")
    pool.release(table)
    pool.allocate(1)
    assert pool.match([b"a", b"b"]) == [table[0]]


def test_shared_blocks_are_counted_once_per_table() -> None:
    pool = BlockPool(2)
    table = pool.allocate(1)
    pool.seal(table[0], b"a")
    pool.acquire(table)
    pool.check_integrity([table, table])
    pool.release(table)
    assert pool.used == 1
    assert pool.unreferenced(table) == 0
    pool.release(table)
    assert pool.used == 0
    assert pool.unreferenced(table) == 1


def test_a_second_block_with_known_content_stays_private() -> None:
    pool = BlockPool(2)
    first, second = pool.allocate(2)
    pool.seal(first, b"a")
    pool.seal(second, b"a")
    pool.release([second])
    pool.check_integrity([[first]])
    assert pool.match([b"a"]) == [first]


def test_the_check_notices_a_lost_reference() -> None:
    pool = BlockPool(2)
    pool.allocate(1)
    with pytest.raises(AssertionError):
        pool.check_integrity([])
