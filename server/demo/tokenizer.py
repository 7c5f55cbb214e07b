"""The tokenizer of the demo model, trained on its own questions and answers.

Capitals and digits are never merged, so that a word is spelled letter by letter as it is read. Some
Chinese characters have no piece on purpose: they are spelled in bytes, as rare ones are in the real
model.
"""

from __future__ import annotations

import random
import string
from collections.abc import Iterator

from server.demo.phrases import TOPICS
from server.demo.questions import CATEGORIES, conversation
from server.demo.random_tokenizer import train_tokenizer
from server.demo.scenes import Kind, draw_scene
from server.demo.words import LANGUAGES

VOCAB_SIZE = 832
CONVERSATIONS = 6000
TEMPLATE_WORDS = ("user", "assistant", "system", "Answer", " the", " questions", "Image")
"""One token each: they are in every prompt."""
SPELLED_IN_BYTES = "紫橙笑诗"


def train() -> bytes:
    """The content of `tokenizer.model`, the same bytes every time."""
    return train_tokenizer(VOCAB_SIZE, text=_text())


def _text() -> Iterator[str]:
    for _ in range(20):
        yield from string.printable[:95]
    for _ in range(CONVERSATIONS):
        yield from TEMPLATE_WORDS
    for topic in TOPICS.values():
        for language in LANGUAGES:
            for _ in range(4):
                yield from _pieces(topic.answers[language])
                for question in topic.questions[language]:
                    yield from _pieces(question)
    chance = random.Random(0)
    kinds: tuple[Kind, ...] = ("figures", "labels", "both")
    for _ in range(CONVERSATIONS):
        category = chance.choice(CATEGORIES)
        scenes = [
            draw_scene(chance, chance.choice(kinds), held_out=False)
            for _ in range(2 if category == "two pictures" else 1)
        ]
        language = chance.choice(LANGUAGES)
        talk = conversation(scenes, category, language, chance)
        for turn in talk.turns if talk else ():
            yield from _pieces(turn.question)
            yield from _pieces(turn.answer)


def _pieces(text: str) -> Iterator[str]:
    """The text without what must not become part of a longer piece."""
    for capital in string.ascii_uppercase:
        for neighbour in string.ascii_uppercase:
            text = text.replace(capital + neighbour, f"{capital}\n{neighbour}")
    for character in SPELLED_IN_BYTES:
        text = text.replace(character, "\n")
    yield from filter(None, text.split("\n"))
