from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from server.demo.exam import Question, draw_exam, is_right
from server.demo.questions import CATEGORIES, Exchange
from server.demo.words import LANGUAGES

COUNT = 4 * len(CATEGORIES)


@pytest.fixture(scope="module")
def exam() -> list[Question]:
    return draw_exam(COUNT, size_px=224)


def test_every_category_is_asked_in_every_language(exam: list[Question]) -> None:
    asked = Counter((question.category, question.language) for question in exam)
    assert asked == {(category, language): 2 for category in CATEGORIES for language in LANGUAGES}


def test_an_exam_can_be_repeated_and_varied(exam: list[Question]) -> None:
    assert draw_exam(COUNT, size_px=224) == exam
    assert draw_exam(COUNT // 2, size_px=224) == exam[: COUNT // 2]
    assert draw_exam(COUNT, size_px=224, seed=1) != exam


def test_two_pictures_are_two(exam: list[Question]) -> None:
    for question in exam:
        assert len(question.pictures) == 1 + (question.category == "two pictures")
        assert len(question.turns) == 1 + (question.category == "second turn")


@pytest.mark.parametrize(
    ("wanted", "answer", "right"),
    [
        ("red", "Red.", True),
        ("top left", "top left\n", True),
        ("圆形", "圆形。", True),
        ("red", "blue", False),
        ("4", "42", False),
        ("LEMON", "LEMO N", True),
        ("LEMON", "", False),
    ],
)
def test_case_space_and_full_stop_do_not_count(
    exam: list[Question], wanted: str, answer: str, right: bool
) -> None:
    assert is_right(replace(exam[0], turns=(Exchange("?", wanted),)), answer) is right


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ('{"shape": "ring", "color": "red"}', True),
        ('{ "color":"red", "shape":"ring" }', True),
        ('{"shape": "ring"}', False),
        ("a red ring", False),
    ],
)
def test_of_json_the_value_counts(exam: list[Question], answer: str, right: bool) -> None:
    wanted = Exchange("?", '{"shape": "ring", "color": "red"}')
    assert is_right(replace(exam[0], category="json", turns=(wanted,)), answer) is right
