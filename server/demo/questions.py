"""Conversations about scenes: questions, and the answers that are right.

A category is what evaluation counts by. Which questions fit a scene follows from what is in it:
nothing is asked that has two right answers.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from server.demo.phrases import THING, THING_ZH, TOPICS
from server.demo.scenes import Figure, Scene
from server.demo.words import CHINESE, COLOURS, PLURALS, SHAPES, Language, article

Category = Literal[
    "shapes", "colours", "counting", "position", "reading", "two pictures", "second turn",
    "json", "description", "other",
]  # fmt: skip
CATEGORIES: tuple[Category, ...] = get_args(Category)

Slots = dict[str, str]
Fact = tuple[str, Slots]
"""A topic and the words that fill it in, in English."""

Facts = Iterator[tuple[Fact, ...]]
"""The turns of possible conversations."""


@dataclass(frozen=True, slots=True)
class Exchange:
    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Conversation:
    category: Category
    language: Language
    facts: tuple[Fact, ...]
    turns: tuple[Exchange, ...]


def conversation(
    scenes: Sequence[Scene],
    category: Category,
    language: Language,
    chance: random.Random,
) -> Conversation | None:
    """A conversation of a category about one scene or two, or None where none fits."""
    makers = _TWO_SCENES if len(scenes) == 2 else _ONE_SCENE
    if category not in makers:
        return None
    topics: dict[tuple[str, ...], list[tuple[Fact, ...]]] = {}
    for turns in makers[category](scenes):
        topics.setdefault(tuple(topic for topic, _ in turns), []).append(turns)
    if not topics:
        return None
    # Topics first: a question that fits in many ways would crowd out the others.
    facts = chance.choice(topics[chance.choice(list(topics))])
    exchanges = tuple(_phrase(topic, slots, language, chance) for topic, slots in facts)
    return Conversation(category, language, facts, exchanges)


def _phrase(topic: str, slots: Slots, language: Language, chance: random.Random) -> Exchange:
    phrasings = TOPICS[topic].questions[language]
    words = slots
    if language == "zh":
        words = {name: CHINESE.get(word, word) for name, word in slots.items()}
        words |= {"things": slots.get("things_zh", "")}
    answer = TOPICS[topic].answers[language].format(**words)
    return Exchange(chance.choice(phrasings).format(**words), answer)


def _figure_slots(figure: Figure, scene: Scene) -> Slots:
    return {
        "a": article(figure.colour),
        "colour": figure.colour,
        "shape": figure.shape,
        "thing": figure.name,
        "place": scene.place(figure),
    }


def _named(scene: Scene) -> dict[str, Figure]:
    """Figures by the shortest name that is theirs alone."""
    shapes = Counter(figure.shape for figure in scene.figures)
    names = Counter(figure.name for figure in scene.figures)
    return {
        figure.shape if shapes[figure.shape] == 1 else figure.name: figure
        for figure in scene.figures
        if names[figure.name] == 1
    }


def _alone(scene: Scene, attribute: str) -> list[Figure]:
    """Figures whose shape, or colour, no other one has."""
    counts = Counter(getattr(figure, attribute) for figure in scene.figures)
    return [figure for figure in scene.figures if counts[getattr(figure, attribute)] == 1]


def _shapes(scenes: Sequence[Scene]) -> Facts:
    (scene,) = scenes
    for figure in scene.figures:
        yield (("shape_at", _figure_slots(figure, scene)),)
    for figure in _alone(scene, "colour"):
        yield (("shape_of_colour", _figure_slots(figure, scene)),)
    if len(scene.figures) == 1:
        yield (("shape", _figure_slots(scene.figures[0], scene)),)
    seen = {figure.shape for figure in scene.figures}
    asked = [*seen, *[shape for shape in SHAPES if shape not in seen][: len(seen)]]
    if scene.figures:
        for shape in asked:
            yes = "yes" if shape in seen else "no"
            yield (("exists", {"a": article(shape), "thing": shape, "yes": yes}),)


def _colours(scenes: Sequence[Scene]) -> Facts:
    (scene,) = scenes
    for figure in scene.figures:
        yield (("colour_at", _figure_slots(figure, scene)),)
    for figure in _alone(scene, "shape"):
        yield (("colour_of_shape", _figure_slots(figure, scene)),)
    if len(scene.figures) == 1:
        yield (("colour", _figure_slots(scene.figures[0], scene)),)
    for label in scene.labels:
        yield (("colour_of_text", {"kind": label.kind, "colour": label.colour}),)


def _counting(scenes: Sequence[Scene]) -> Facts:
    (scene,) = scenes
    if not scene.figures:
        return
    yield (("count", {"count": str(len(scene.figures))}),)
    shapes = Counter(figure.shape for figure in scene.figures)
    for shape in shapes:
        yield (("count_shape", {"shapes": PLURALS[shape], "count": str(shapes[shape])}),)
    colours = Counter(figure.colour for figure in scene.figures)
    for colour in colours:
        yield (("count_colour", {"colour": colour, "count": str(colours[colour])}),)
    absent = next((colour for colour in COLOURS if colour not in colours), "red")
    if len(scene.figures) == 3:
        yield (("count_colour", {"colour": absent, "count": str(colours[absent])}),)


def _position(scenes: Sequence[Scene]) -> Facts:
    (scene,) = scenes
    named = _named(scene)
    for name, figure in named.items():
        yield (("place", {"one": name, "place": scene.place(figure)}),)
        for other_name, other in named.items():
            slots = {"one": name, "other": other_name}
            if figure.column != other.column:
                side = "left" if figure.column < other.column else "right"
                yield (("side_across", slots | {"side": side}),)
            if figure.row != other.row:
                side = "above" if figure.row < other.row else "below"
                yield (("side_along", slots | {"side": side}),)


def _reading(scenes: Sequence[Scene]) -> Facts:
    (scene,) = scenes
    for label in scene.labels:
        yield (("text", {"kind": label.kind, "text": label.text}),)
    if len(scene.labels) == 1:
        yield (("only_text", {"text": scene.labels[0].text}),)


def _json(scenes: Sequence[Scene]) -> Facts:
    (scene,) = scenes
    for figure in scene.figures:
        yield (("json_thing_at", _figure_slots(figure, scene)),)
    if len(scene.figures) == 1:
        yield (("json_thing", _figure_slots(scene.figures[0], scene)),)
    if scene.figures:
        yield (("json_count", {"count": str(len(scene.figures))}),)
    for label in scene.labels:
        yield (("json_text", {"kind": label.kind, "text": label.text}),)


def _description(scenes: Sequence[Scene]) -> Facts:
    (scene,) = scenes
    slots = [_figure_slots(figure, scene) for figure in scene.figures]
    for figure_slots in slots:
        yield (("thing_at", figure_slots),)
    english = [THING.format(**words) for words in slots]
    english += [f"the {label.kind} {label.text}" for label in scene.labels]
    chinese = [THING_ZH.format(**{n: CHINESE.get(w, w) for n, w in s.items()}) for s in slots]
    chinese += [f"{CHINESE[label.kind]}{label.text}" for label in scene.labels]
    things = {"things": ", ".join(english), "things_zh": "、".join(chinese)}
    yield (("thing", things),)


def _second_turn(scenes: Sequence[Scene]) -> Facts:
    (scene,) = scenes
    for figure in scene.figures:
        slots = _figure_slots(figure, scene)
        yield ("shape_at", slots), ("and_colour", slots)
        yield ("colour_at", slots), ("and_shape", slots)
    for figure in _alone(scene, "colour"):
        slots = _figure_slots(figure, scene)
        yield ("shape_of_colour", slots), ("and_place", slots)
    for figure in _alone(scene, "shape"):
        slots = _figure_slots(figure, scene)
        yield ("colour_of_shape", slots), ("and_place", slots)
        yield ("place", slots | {"one": figure.shape}), ("and_colour", slots)
    for label in scene.labels:
        text = {"kind": label.kind, "text": label.text, "colour": label.colour}
        yield ("text", text), ("and_colour", text)
    counts = Counter(figure.shape for figure in scene.figures)
    for first in counts:
        for second in counts:
            if first != second:
                yield tuple(
                    (topic, {"shapes": PLURALS[shape], "count": str(counts[shape])})
                    for topic, shape in (("count_shape", first), ("and_count", second))
                )


def _two_pictures(scenes: Sequence[Scene]) -> Facts:
    for number, (one, other) in enumerate((tuple(scenes), tuple(reversed(scenes))), start=1):
        found = {"number": str(number)}
        names = {figure.name for figure in one.figures}
        for name in sorted(names - {figure.name for figure in other.figures}):
            yield (("picture_with", found | {"a": article(name), "thing": name}),)
        shapes = {figure.shape for figure in one.figures}
        for shape in sorted(shapes - {figure.shape for figure in other.figures}):
            yield (("picture_with", found | {"a": article(shape), "thing": shape}),)
        for label in one.labels:
            if label.text not in [elsewhere.text for elsewhere in other.labels]:
                slots = found | {"kind": label.kind, "text": label.text}
                yield (("picture_with_text", slots),)
        if len(one.figures) > len(other.figures):
            yield (("picture_with_more", found),)


def _other(_: Sequence[Scene]) -> Facts:
    yield (("other", {}),)


_ONE_SCENE: dict[Category, Callable[[Sequence[Scene]], Facts]] = {
    "shapes": _shapes,
    "colours": _colours,
    "counting": _counting,
    "position": _position,
    "reading": _reading,
    "second turn": _second_turn,
    "json": _json,
    "description": _description,
    "other": _other,
}
_TWO_SCENES: dict[Category, Callable[[Sequence[Scene]], Facts]] = {"two pictures": _two_pictures}
