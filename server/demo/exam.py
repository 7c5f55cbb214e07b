"""Questions that training has never seen, and what is right as an answer.

Scenes come from seeds of their own, words also from a list that training leaves out. Pictures are
files of any kind, size and aspect that clients send.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass

from server.demo.pictures import draw_canvas
from server.demo.questions import CATEGORIES, Category, Exchange, conversation
from server.demo.render import encode_file, render
from server.demo.scenes import Kind, Scene, draw_scene
from server.demo.words import LANGUAGES, Language

SCORED: tuple[Category, ...] = CATEGORIES[:7]
"""What must be answered right; the others are shown beside them."""

_KINDS: dict[Category, tuple[Kind, ...]] = {
    "reading": ("labels", "both"),
    "two pictures": ("figures", "labels", "both"),
    "second turn": ("figures", "both"),
    "json": ("figures", "labels", "both"),
    "description": ("figures", "labels", "both"),
}
"""What scenes a category is asked about; figures where nothing is said."""


@dataclass(frozen=True, slots=True)
class Question:
    """A conversation about pictures; the answer to its last turn counts."""

    category: Category
    language: Language
    pictures: tuple[bytes, ...]
    """Files."""
    turns: tuple[Exchange, ...]


def draw_exam(count: int, *, size_px: int, seed: int = 0) -> list[Question]:
    """Questions of all categories and languages in turn; `size_px` is the model's picture size."""
    return [
        _draw_question(
            CATEGORIES[index % len(CATEGORIES)],
            LANGUAGES[index // len(CATEGORIES) % 2],
            size_px,
            random.Random(f"exam-{seed}-{index}"),
        )
        for index in range(count)
    ]


def is_right(question: Question, answer: str) -> bool:
    """Whether the last turn's answer is right: case, white space and full stops do not count, and
    of JSON only the value does."""
    wanted = question.turns[-1].answer
    if question.category == "json":
        try:
            return bool(json.loads(answer) == json.loads(wanted))
        except ValueError:
            return False
    return _plain(answer) == _plain(wanted)


def _plain(text: str) -> str:
    return "".join(text.casefold().split()).rstrip(".。")


def _draw_question(
    category: Category, language: Language, size_px: int, chance: random.Random
) -> Question:
    talk = None
    while talk is None:
        scenes = _draw_scenes(category, chance)
        talk = conversation(scenes, category, language, chance)
    pictures = tuple(_draw_file(scene, size_px, chance) for scene in scenes)
    return Question(category, language, pictures, talk.turns)


def _draw_scenes(category: Category, chance: random.Random) -> list[Scene]:
    kinds = _KINDS.get(category, ("figures", "figures", "both"))
    count = 2 if category == "two pictures" else 1
    return [draw_scene(chance, chance.choice(kinds), held_out=True) for _ in range(count)]


def _draw_file(scene: Scene, size_px: int, chance: random.Random) -> bytes:
    rendering = render(scene, *draw_canvas(chance, size_px))
    return encode_file(rendering, scene.background, chance)
