from __future__ import annotations

import json
import random

import pytest

from server.demo.questions import CATEGORIES, Category, Exchange, conversation
from server.demo.scenes import Figure, Label, Scene, draw_scene
from server.demo.words import LANGUAGES, Language


def figure(shape: str, colour: str, row: int, column: int) -> Figure:
    return Figure(shape, colour, row, column, dx=0, dy=0, size=0.7)


def label(text: str, row: int, colour: str = "black") -> Label:
    return Label(text, "sans", colour, row, dx=0.5, dy=0, height=0.5)


def scene(*figures: Figure, labels: tuple[Label, ...] = ()) -> Scene:
    return Scene(3, figures, labels, (255, 255, 255), 0, 0)


CIRCLE, SQUARE = figure("circle", "red", 0, 0), figure("square", "blue", 2, 1)
TWO = scene(CIRCLE, SQUARE)
TEXT = scene(labels=(label("7", 0, "green"), label("TAXI", 2)))


def asked(
    scenes: list[Scene], category: Category, language: Language = "en"
) -> dict[tuple[str, ...], tuple[str, ...]]:
    """All conversations of a category: questions to answers."""
    chance = random.Random(0)
    talks = [conversation(scenes, category, language, chance) for _ in range(900)]
    found: dict[tuple[str, ...], tuple[str, ...]] = {}
    for talk in talks:
        assert talk
        questions = tuple(turn.question for turn in talk.turns)
        answers = tuple(turn.answer for turn in talk.turns)
        assert found.setdefault(questions, answers) == answers
    return found


@pytest.mark.parametrize(
    ("scenes", "category", "question", "answer"),
    [
        ([TWO], "shapes", "What shape is red?", "circle"),
        ([TWO], "shapes", "What shape is at the bottom middle?", "square"),
        ([TWO], "shapes", "Is there a circle?", "yes"),
        ([TWO], "shapes", "Is there a triangle?", "no"),
        ([TWO], "colours", "What colour is the square?", "blue"),
        ([TEXT], "colours", "What colour is the number?", "green"),
        ([TWO], "counting", "How many shapes are there?", "2"),
        ([TWO], "counting", "How many circles are there?", "1"),
        ([TWO], "position", "Where is the circle?", "top left"),
        ([TWO], "position", "Is the circle left or right of the square?", "left"),
        ([TWO], "position", "Is the square above or below the circle?", "below"),
        ([TEXT], "reading", "Read the word.", "TAXI"),
        ([TEXT], "reading", "What number is this?", "7"),
        ([TWO, TEXT], "two pictures", "Which picture has a red circle?", "Image-1"),
        ([TWO, TEXT], "two pictures", "Which picture shows the word TAXI?", "Image-2"),
        ([TWO, TEXT], "two pictures", "Which picture has more shapes?", "Image-1"),
        ([TWO], "description", "Describe the picture.", "a red circle, a blue square"),
    ],
)
def test_answers_are_right(
    scenes: list[Scene], category: Category, question: str, answer: str
) -> None:
    assert asked(scenes, category)[(question,)] == (answer,)


@pytest.mark.parametrize(
    ("category", "question", "answer"),
    [
        ("shapes", "红色的是什么形状？", "圆形"),
        ("colours", "正方形是什么颜色？", "蓝色"),
        ("counting", "有几个形状？", "2"),
        ("position", "圆形在哪里？", "左上"),
        ("position", "圆形在正方形的上面还是下面？", "上面"),
        ("description", "请描述这张图片。", "红色的圆形、蓝色的正方形"),
    ],
)
def test_answers_are_right_in_chinese(category: Category, question: str, answer: str) -> None:
    assert asked([TWO], category, "zh")[(question,)] == (answer,)


def test_second_turns_follow_up_on_the_first() -> None:
    talks = asked([TWO], "second turn")
    assert talks["What shape is red?", "And where is it?"] == ("circle", "top left")
    assert talks["How many circles are there?", "And squares?"] == ("1", "1")
    assert talks["Where is the square?", "And its colour?"] == ("bottom middle", "blue")


def test_json_answers_are_json() -> None:
    talks = asked([scene(CIRCLE)], "json")
    answer = talks[("Describe the shape in JSON.",)][0]
    assert json.loads(answer) == {"shape": "circle", "color": "red"}


def test_what_has_two_right_answers_is_not_asked() -> None:
    twins = scene(CIRCLE, figure("circle", "red", 1, 1), figure("star", "green", 2, 2))
    questions = {q for talk in asked([twins], "position") for q in talk}
    assert questions == {q for q in questions if "star" in q}
    assert not [q for talk in asked([twins], "colours") for q in talk if "the circle" in q]


def test_the_same_in_both_pictures_is_not_asked_for() -> None:
    talk = conversation([TWO, TWO], "two pictures", "en", random.Random(0))
    assert talk is None


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("category", CATEGORIES)
def test_every_category_can_be_asked_in_every_language(
    category: Category, language: Language
) -> None:
    chance = random.Random(5)
    talks = []
    for _ in range(40):
        count = 2 if category == "two pictures" else 1
        drawn = [draw_scene(chance, "both", held_out=True) for _ in range(count)]
        talks.append(conversation(drawn, category, language, chance))
    turns: list[Exchange] = [turn for talk in talks if talk for turn in talk.turns]
    assert turns
    for turn in turns:
        assert turn.question
        assert turn.answer
        assert "{" not in turn.question
