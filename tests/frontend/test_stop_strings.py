from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from server.frontend.stop_strings import StopFinder
from tests.frontend.support import cut

alphabet = st.text("ab", max_size=20)
stop_lists = st.lists(st.text("ab", max_size=5), max_size=3)


@settings(derandomize=True, max_examples=600, deadline=None)
@given(st.lists(alphabet, max_size=6), stop_lists)
@example(["abab", "b"], ["ababb", "ba"])
@example(["aabaa", "ab"], ["aabaab", "baa", "a" * 3])
def test_any_pieces_give_the_text_cut_at_the_first_stop(
    pieces: list[str], stops: list[str]
) -> None:
    finder = StopFinder(stops)

    released = "".join(map(finder.push, pieces)) + finder.finish()

    assert (released, finder.stopped) == cut("".join(pieces), stops)


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.lists(alphabet, max_size=6), stop_lists)
def test_what_is_held_back_may_still_become_a_stop(pieces: list[str], stops: list[str]) -> None:
    finder = StopFinder(stops)
    seen = released = ""
    for piece in pieces:
        seen += piece
        released += finder.push(piece)
        if finder.stopped is not None:
            break
        held = seen.removeprefix(released)
        assert seen == released + held
        assert not held or any(stop.startswith(held) for stop in stops)


def test_an_earlier_stop_wins_over_one_that_is_complete_before_it() -> None:
    finder = StopFinder(["abcd", "bc"])
    assert finder.push("xabc") == "x"
    assert finder.stopped is None

    assert finder.push("d") == ""
    assert finder.stopped == "abcd"


def test_a_complete_stop_counts_when_the_earlier_one_comes_to_nothing() -> None:
    finder = StopFinder(["abcd", "bc"])
    assert finder.push("xabc") + finder.push("e") == "xa"
    assert finder.stopped == "bc"

    finder = StopFinder(["abcd", "bc"])
    assert finder.push("xabc") + finder.finish() == "xa"
    assert finder.stopped == "bc"


def test_nothing_comes_after_a_stop() -> None:
    finder = StopFinder(["END"])
    assert finder.push("a END b") == "a "
    assert finder.push("more") == ""
    assert finder.finish() == ""


@pytest.mark.parametrize("stops", [[], [""]])
def test_without_stop_strings_nothing_is_held_back(stops: list[str]) -> None:
    finder = StopFinder(stops)

    assert [finder.push(piece) for piece in ("a", "", "b")] == ["a", "", "b"]
    assert finder.finish() == ""
    assert finder.stopped is None


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.lists(alphabet, max_size=6), stop_lists)
def test_a_kept_stop_string_is_all_that_is_added(pieces: list[str], stops: list[str]) -> None:
    finder, keeping = StopFinder(stops), StopFinder(stops, keep=True)
    released = "".join(map(finder.push, pieces)) + finder.finish()
    kept = "".join(map(keeping.push, pieces)) + keeping.finish()
    assert keeping.stopped == finder.stopped
    assert kept == released + (finder.stopped or "")
