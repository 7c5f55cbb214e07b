from __future__ import annotations

from dataclasses import replace

import pytest

from server.demo.mentions import NOTHING, UNKNOWN, find_mentions
from server.demo.scenes import Figure, Label, Scene


def scene(*figures: tuple[str, str, int, int]) -> Scene:
    """Figures as (colour, shape, row, column)."""
    drawn = tuple(
        Figure(shape, colour, row, column, 0, 0, 0.6) for colour, shape, row, column in figures
    )
    return Scene(3, drawn, (), (255, 255, 255), 0, 0)


def label(text: str) -> Label:
    return Label(text, "dots", "black", 2, 0, 0, 0.4)


SCENE = scene(("red", "star", 0, 0), ("red", "ring", 1, 1), ("blue", "ring", 2, 2))
STAR = (1, 0, 3, 0, UNKNOWN)
BLUE_RING = (1, 8, 5, 4, UNKNOWN)


def several(count: int) -> tuple[int, ...]:
    return count, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN


@pytest.mark.parametrize(
    ("question", "named"),
    [
        ("Is the star left or right of the blue ring?", [STAR, BLUE_RING]),
        ("星形在蓝色的圆环的左边还是右边？", [STAR, BLUE_RING]),
        ("What shape is at the bottom right?", [BLUE_RING]),
        ("How many rings are there?", [several(2)]),
        ("How many red shapes are there?", [several(2)]),
        ("How many shapes are there?", [several(3)]),
        ("有几个形状？", [several(3)]),
        ("Is there a cross?", [several(0)]),
        ("And its colour?", []),
    ],
)
def test_words_name_the_figures_that_they_fit(question: str, named: list[object]) -> None:
    assert [labels for _, labels in find_mentions(question, [SCENE])] == named


def test_a_mention_ends_with_its_words() -> None:
    question = "Is the star left or right of the blue ring?"
    ends = [end for end, _ in find_mentions(question, [SCENE])]
    assert [question[:end] for end in ends] == ["Is the star", question[:-1]]


def test_of_two_pictures_it_is_the_one_that_has_it() -> None:
    other = scene(("green", "star", 0, 0))
    found = dict.fromkeys(["Which picture has a ring?", "Which picture has a star?"])
    for question in found:
        ((_, found[question]),) = find_mentions(question, [other, SCENE])
    assert list(found.values()) == [(*NOTHING[:4], 1), NOTHING]


def test_of_two_pictures_it_is_the_one_with_the_text() -> None:
    one, other = (replace(SCENE, labels=(label(text),)) for text in ("27", "MAPLE"))
    for text, picture in (("27", 0), ("MAPLE", 1)):
        question = f"Which picture has the word {text}?"
        assert list(find_mentions(question, [one, other])) == [
            (question.index("?"), (*NOTHING[:4], picture))
        ]
    assert list(find_mentions("Which picture has the number 2?", [one, other])) == []
