from __future__ import annotations

from pathlib import Path

import pytest

from server.board import OTHER, PAGE_BYTES, WORDS_MAX, Board


def boards(run_dir: Path, processes: int) -> list[Board]:
    return [Board.open(run_dir, processes, own) for own in range(processes)]


def test_a_process_that_is_alone_needs_no_memory_of_others(tmp_path: Path) -> None:
    board = Board.open(tmp_path, 1, 0)
    row, sums, tally, words = board.integers(2), board.floats(1), board.tally(), board.words()
    row.own[1] += 3
    sums.own[0] += 0.5
    tally.own = 4
    words.add("stop", 2)
    assert (row.totals(), sums.totals(), words.totals()) == ([0, 3], [0.5], {"stop": 2})
    assert (tally.total, tally.largest) == (4, 4)
    assert list(tmp_path.iterdir()) == []


def test_everybody_reads_the_sums(tmp_path: Path) -> None:
    rows = [(board.integers(3), board.floats(2)) for board in boards(tmp_path, 3)]
    for place, (counts, sums) in enumerate(rows):
        counts.own[2] += 10**place
        sums.own[1] += 0.25
    for counts, sums in rows:
        assert counts.totals() == [0, 0, 111]
        assert sums.totals() == [0, 0.75]


def test_words_of_all_are_counted(tmp_path: Path) -> None:
    first, second = (board.words() for board in boards(tmp_path, 2))
    first.add("", 1)
    first.add("length", 2)
    second.add("stop", 4)
    second.add("length", 8)
    for counts in (first, second):
        assert counts.totals() == {"": 1, "length": 10, "stop": 4}


@pytest.mark.parametrize("processes", [1, 2])
def test_too_many_words_count_as_others(tmp_path: Path, processes: int) -> None:
    words = Board.open(tmp_path, processes, processes - 1).words()
    for number in range(2 * WORDS_MAX):
        words.add(f"{number:0100d}"[-60:], 1)
    totals = words.totals()
    assert len(totals) == WORDS_MAX
    assert totals[OTHER] == WORDS_MAX + 1
    words.add("x" * 1000, 1)
    assert sum(words.totals().values()) == 2 * WORDS_MAX + 1


def test_what_was_counted_stays_and_what_was_held_does_not(tmp_path: Path) -> None:
    def numbers(own: int) -> tuple[list[int], dict[str, float], int]:
        board = Board.open(tmp_path, 2, own)
        row, words, tally = board.integers(1), board.words(), board.tally()
        row.own[0] += 1
        words.add("stop", 1)
        tally.own += 5
        return row.totals(), words.totals(), tally.total

    assert numbers(0) == ([1], {"stop": 1}, 5)
    assert numbers(1) == ([2], {"stop": 2}, 10)
    assert numbers(1) == ([3], {"stop": 3}, 10), "the second was killed and started again"


def test_the_largest_of_all(tmp_path: Path) -> None:
    tallies = [board.tally() for board in boards(tmp_path, 2)]
    tallies[1].own = 3
    assert [tally.largest for tally in tallies] == [3, 3]


def test_a_board_that_is_full_is_our_mistake(tmp_path: Path) -> None:
    board = Board.open(tmp_path, 2, 0)
    with pytest.raises(AssertionError):
        board.integers(PAGE_BYTES // 8 + 1)
