"""Scenes: what a demo picture shows, drawn at random from a seed.

A scene is a square grid of cells. Each figure stands in a cell of its own and each label takes a
row. Everything is in fractions of the canvas, so that a scene can be rendered in any size.
"""

from __future__ import annotations

import random
import string
from dataclasses import dataclass, replace
from typing import Literal

from server.demo.fonts import DIGIT_FONTS, LETTER_FONTS
from server.demo.words import COLOURS, HELD_OUT_WORDS, PLACES, REAL_WORDS, SHAPES

Kind = Literal["figures", "labels", "both"]


@dataclass(frozen=True, slots=True)
class Figure:
    shape: str
    colour: str
    row: int
    column: int
    dx: float
    """Shift from the middle of the cell, in cells."""
    dy: float
    size: float
    """Diameter, in cells."""

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True, slots=True)
class Label:
    text: str
    font: str
    colour: str
    row: int
    dx: float
    """Where between the left and the right margin: 0 to 1."""
    dy: float
    """Shift from the middle of the row, in cells."""
    height: float
    """Of a capital, in cells; less where the text would not fit."""

    @property
    def kind(self) -> str:
        return "number" if self.text.isdigit() else "word"


@dataclass(frozen=True, slots=True)
class Scene:
    grid: int
    figures: tuple[Figure, ...]
    """In the order of reading: row by row."""
    labels: tuple[Label, ...]
    """From top to bottom, at most one word and one number."""
    background: tuple[int, int, int]
    noise: float
    """Deviation of each pixel, in steps of 255."""
    seed: int
    """For what the renderer draws at random."""

    def place(self, figure: Figure) -> str:
        """How a question calls the cell of a figure."""
        step = 2 // (self.grid - 1)
        return PLACES[figure.row * step][figure.column * step]

    def turned(self) -> Scene:
        """The scene with rows and columns of its figures swapped, for questions only; labels stay
        where they are."""
        figures = [
            replace(figure, row=figure.column, column=figure.row, dx=figure.dy, dy=figure.dx)
            for figure in self.figures
        ]
        figures.sort(key=lambda figure: (figure.row, figure.column))
        return replace(self, figures=tuple(figures))


def draw_scene(
    chance: random.Random, kind: Kind, *, grid: int = 3, count: int | None = None, held_out: bool
) -> Scene:
    """A scene of `count` figures (default: any number) and of labels where `kind` has them.

    Args:
        grid: cells along a side, 2 or 3.
        held_out: words of `HELD_OUT_WORDS` in place of those that training shows.
    """
    labels: tuple[Label, ...] = ()
    if kind != "figures":
        labels = _draw_labels(chance, grid, held_out, most=2 if kind == "labels" else 1)
    rows = [row for row in range(grid) if row not in {label.row for label in labels}]
    cells = [(row, column) for row in rows for column in range(grid)]
    figures: tuple[Figure, ...] = ()
    if kind != "labels":
        most = min(6, len(cells))
        count = chance.randint(1, most) if count is None else min(count, most)
        figures = _draw_figures(chance, sorted(chance.sample(cells, count)))
    return Scene(
        grid=grid,
        figures=figures,
        labels=labels,
        background=_draw_background(chance),
        noise=chance.choice((0, 0, 0, 2, 4)),
        seed=chance.getrandbits(32),
    )


def _draw_figures(chance: random.Random, cells: list[tuple[int, int]]) -> tuple[Figure, ...]:
    colours, shapes = list(COLOURS), list(SHAPES)
    if chance.random() < 0.5:  # all different: each can be asked for by its shape or its colour
        chosen_colours = chance.sample(colours, len(cells))
        chosen_shapes = chance.sample(shapes, len(cells))
    else:
        few = chance.randint(1, 3)
        chosen_colours = chance.choices(chance.sample(colours, few + 1), k=len(cells))
        chosen_shapes = chance.choices(chance.sample(shapes, few), k=len(cells))
    return tuple(
        Figure(
            shape,
            colour,
            row,
            column,
            dx=chance.uniform(-0.1, 0.1),
            dy=chance.uniform(-0.1, 0.1),
            size=chance.uniform(0.5, 0.8),
        )
        for (row, column), shape, colour in zip(cells, chosen_shapes, chosen_colours, strict=True)
    )


def _draw_labels(chance: random.Random, grid: int, held_out: bool, most: int) -> tuple[Label, ...]:
    kinds = chance.sample(("word", "number"), chance.randint(1, most))
    rows = sorted(chance.sample(range(grid), len(kinds)))
    colours = [colour for colour in COLOURS if colour != "yellow"]
    longest = 6 if grid > 2 else 4
    labels = []
    for kind, row in zip(kinds, rows, strict=True):
        number = kind == "number"
        text = _draw_number(chance, longest) if number else _draw_word(chance, held_out, longest)
        labels.append(
            Label(
                text,
                chance.choice(DIGIT_FONTS if number else LETTER_FONTS),
                chance.choice(("black", chance.choice(colours))),
                row,
                dx=chance.random(),
                dy=chance.uniform(-0.1, 0.1),
                height=chance.uniform(0.32, 0.6),
            )
        )
    return tuple(labels)


def _draw_number(chance: random.Random, longest: int) -> str:
    digits = chance.randint(1, min(4, longest))
    return str(chance.randint(10 ** (digits - 1) if digits > 1 else 0, 10**digits - 1))


def _draw_word(chance: random.Random, held_out: bool, longest: int) -> str:
    if chance.random() < 0.4:
        words = [w for w in (HELD_OUT_WORDS if held_out else REAL_WORDS) if len(w) <= longest]
        return chance.choice(words)
    return "".join(chance.choices(string.ascii_uppercase, k=chance.randint(3, longest)))


def _draw_background(chance: random.Random) -> tuple[int, int, int]:
    if chance.random() < 0.4:
        return (255, 255, 255)
    return (chance.randint(225, 255), chance.randint(225, 255), chance.randint(225, 255))
