"""How `benchmarks.eval_demo` counts and shuffles."""

from __future__ import annotations

from benchmarks.eval_demo import Result, shares, show, shuffled
from server.demo.exam import Question, draw_exam
from server.demo.questions import CATEGORIES, Category, Exchange
from server.demo.words import Language


def question(category: Category, language: Language, picture: bytes = b"") -> Question:
    return Question(category, language, (picture,), (Exchange("?", "4"),))


def test_shares_are_by_category_and_language() -> None:
    results = [
        Result(question("counting", "en"), "4", True),
        Result(question("counting", "zh"), "5", False),
        Result(question("shapes", "en"), "4", True),
        Result(question("other", "en"), "", False),
    ]
    table = shares(results)
    assert table["counting"] == {"en": 1.0, "zh": 0.0, "both": 0.5, "questions": 2}
    assert table["shapes"]["both"] == 1.0
    assert table["all scored"]["questions"] == 3
    assert table["all scored"]["both"] == 2 / 3
    assert "counting        100.0%    0.0%   50.0%" in show(table)


def test_shuffled_questions_keep_everything_but_their_pictures() -> None:
    exam = draw_exam(4 * len(CATEGORIES), size_px=56)
    other = {(q.category, q.turns, q.language): q for q in shuffled(exam)}
    assert len(other) == len({(q.category, q.turns, q.language) for q in exam})
    for q in exam:
        moved = other[q.category, q.turns, q.language]
        assert moved.pictures != q.pictures
        assert len(moved.pictures) == len(q.pictures)
