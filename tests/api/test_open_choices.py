from __future__ import annotations

from pathlib import Path

from server.api.open_choices import UNKNOWN_WAIT_S, OpenChoices
from server.api.submission import Submission
from server.board import Board


def submission(*ids: int) -> Submission:
    return Submission(list(ids), lambda _: None, frozenset())


def two(run_dir: Path) -> list[OpenChoices]:
    """Those of two processes."""
    return [OpenChoices(Board.open(run_dir, 2, own).tally()) for own in range(2)]


def test_a_choice_is_open_once_and_forgotten_once() -> None:
    choices, opened = OpenChoices(Board().tally()), submission(1, 2)
    choices.add([1, 2], opened)
    assert (len(choices), choices.everywhere, choices.submissions) == (2, 2, {opened})
    assert choices.get(1) is opened
    assert choices.forget(1)
    assert not choices.forget(1)
    choices.end(2)
    assert choices.get(2) is None
    assert (len(choices), choices.everywhere) == (0, 0)


def test_what_is_open_elsewhere_counts(tmp_path: Path) -> None:
    first, second = two(tmp_path)
    first.add([1, 2], submission(1, 2))
    second.add([1], submission(1))
    assert first.everywhere == second.everywhere == 3
    first.clear()
    assert first.everywhere == second.everywhere == 1


def test_a_process_waits_for_its_share_of_those_ahead(tmp_path: Path) -> None:
    first, second = two(tmp_path)
    ids = list(range(40))
    for choices in (first, second):
        choices.add(ids, submission(*ids))
        for id in range(20):
            choices.end(id)
    assert first.expected_wait_s(40) == 0
    assert 0 < first.expected_wait_s(20) < first.expected_wait_s(0)
    alone = OpenChoices(Board().tally())
    alone.add(ids, submission(*ids))
    assert alone.expected_wait_s(0) == 0, "nothing has ended, so nothing tells"
    assert UNKNOWN_WAIT_S <= alone.retry_after_s() <= 1.5 * UNKNOWN_WAIT_S
