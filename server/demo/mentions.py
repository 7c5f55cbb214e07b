"""What the words of a question mean: which figures or texts of the scenes they name.

Training alone uses it. A model that is told what each of its words refers to learns to look it up
in a fraction of the time that it takes to find out from right and wrong answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from server.demo.scenes import Figure, Scene
from server.demo.words import CHINESE, COLOURS, PLACES, PLURALS, SHAPES

MOST_FIGURES = 6
ALL_PLACES = tuple(place for row in PLACES for place in row)
MENTION_CLASSES = (MOST_FIGURES + 1, len(ALL_PLACES), len(SHAPES), len(COLOURS), 2)
"""How many figures the words fit; its place, shape and colour if it is one; of two pictures, the
one that has any, or the text."""

UNKNOWN = -100
"""In place of a class."""

Labels = tuple[int, int, int, int, int]
"""By `MENTION_CLASSES`."""
NOTHING: Labels = (UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN)


def find_mentions(question: str, scenes: Sequence[Scene]) -> Iterator[tuple[int, Labels]]:
    """Where words that name figures or texts end in a question about one scene or two, and what
    they name."""
    matches = list(_PATTERN.finditer(question))
    # "Shapes" means all of them, unless other words say which.
    for match in [match for match in matches if _NAMES[match[0]]] or matches:
        wanted = _NAMES[match[0]]
        fitting = [
            [figure for figure in scene.figures if wanted <= _traits(figure, scene)]
            for scene in scenes
        ]
        yield match.end(), _in_one(fitting[0], scenes[0]) if len(scenes) == 1 else _in_two(fitting)
    if len(scenes) == 2:
        yield from _texts(question, scenes)


def _texts(question: str, scenes: Sequence[Scene]) -> Iterator[tuple[int, Labels]]:
    texts = [[label.text for label in scene.labels] for scene in scenes]
    for match in re.finditer("[A-Z]{2,}|[0-9]+", question):
        if any(match[0] in written for written in texts):
            yield match.end(), _in_two([[t for t in written if t == match[0]] for written in texts])


def _in_one(figures: Sequence[Figure], scene: Scene) -> Labels:
    if len(figures) != 1:
        return len(figures), UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN
    (figure,) = figures
    place = ALL_PLACES.index(scene.place(figure))
    return 1, place, SHAPES.index(figure.shape), list(COLOURS).index(figure.colour), UNKNOWN


def _in_two(found: Sequence[Sequence[object]]) -> Labels:
    having = [index for index, these in enumerate(found) if these]
    return (*NOTHING[:4], having[0] if len(having) == 1 else UNKNOWN)


def _traits(figure: Figure, scene: Scene) -> set[str]:
    return {figure.shape, figure.colour, scene.place(figure)}


def _names() -> dict[str, set[str]]:
    """Traits by the words that stand for them, in both languages."""
    names = {trait: {trait} for trait in (*SHAPES, *COLOURS, *ALL_PLACES)}
    names |= {PLURALS[shape]: {shape} for shape in SHAPES}
    names |= {f"{colour} {shape}": {colour, shape} for colour in COLOURS for shape in SHAPES}
    names |= {CHINESE[name]: traits for name, traits in names.items()}
    return names | {"shapes": set(), "形状": set()}


_NAMES = _names()
_LONGEST_FIRST = sorted(_NAMES, key=len, reverse=True)
_PATTERN = re.compile("|".join(rf"\b{n}\b" if n.isascii() else n for n in _LONGEST_FIRST))
