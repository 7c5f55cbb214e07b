"""Training batches: pictures with many conversations about each, as tensors.

The conversations about one picture share its tokens: they are branches behind a common prefix, and
none sees another one. To each it is as if it stood alone behind the picture, with the positions
that it would have there, so training sees exactly the prompts that the server will build.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from server.demo.questions import CATEGORIES, Category, Conversation, conversation
from server.demo.render import Box, Rendering, encode_file, render
from server.demo.scenes import Kind, Scene, draw_scene
from server.demo.words import COLOURS, LANGUAGES, SHAPES
from server.frontend.images import ImageLimits, load_image
from server.frontend.prompt import PromptBuilder
from server.frontend.template import ImagePart, TextPart, Turn
from server.frontend.tokenizer import STOP_TOKENS, Tokenizer
from server.model.spec import ModelSpec

IGNORED = -100
"""Target of a token that is not learned."""

CHARACTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
LONGEST_LABEL = 6
PATCH_CLASSES = (len(SHAPES) + 1, len(COLOURS) + 1, len(CHARACTERS) + 1, LONGEST_LABEL + 2)
"""What a patch may show: no shape or one, no colour or one, no character or one, and its part: the
how-manieth character of a label, or the middle of a figure, which comes last. Parts are what
reading in order and counting need."""

WEIGHTS: dict[Category, float] = {
    "shapes": 1.0,
    "colours": 1.0,
    "counting": 1.2,
    "position": 1.4,
    "reading": 2.5,
    "two pictures": 1.0,
    "second turn": 0.7,
    "json": 0.3,
    "description": 0.3,
    "other": 0.1,
}
"""How often training asks questions of each category."""

_LIMITS = ImageLimits(max_bytes=1 << 24, max_pixels=1 << 24)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the batches of one stage of training are made of."""

    size_px: int
    grid: int
    pictures: int
    """In a batch; an example has one of them, some have two or none."""
    tokens: int
    """Of an example: conversations are added up to this length; 0 trains the vision tower alone."""


@dataclass(frozen=True, slots=True)
class Batch:
    """B examples of up to L tokens with N pictures in all."""

    pixels: Tensor
    """uint8 [N, size, size, 3]"""
    window: tuple[int, int]
    """Row and column of the vision tower's grid where pictures smaller than the model's begin."""
    patches: Tensor
    """int64 [N, patches, 4]: shape, colour, character and part, 0 for none; see `PATCH_CLASSES`."""
    token_ids: Tensor
    """int64 [B, L], as are the next three."""
    positions: Tensor
    branches: Tensor
    """0 for the prefix, -1 for padding."""
    targets: Tensor
    """The token that follows, or `IGNORED`."""
    categories: tuple[tuple[Category, ...], ...]
    """Of each example's branches, from 1 on."""


class Batches(Dataset[Batch]):
    """Batches by number; equal arguments give equal batches, in any process."""

    def __init__(self, recipe: Recipe, spec: ModelSpec, tokenizer: Tokenizer, seed: str) -> None:
        self._recipe = recipe
        self._side = recipe.size_px // spec.vision.patch_size
        self._room = spec.vision.grid - self._side
        self._tokenizer = tokenizer
        tokens_per_image = (self._side // spec.shuffle) ** 2
        self._prompts = PromptBuilder(tokenizer, tokens_per_image, spec.system_message)
        self._seed = seed

    def __getitem__(self, index: int) -> Batch:
        chance = random.Random(f"{self._seed}-{index}")
        scenes: list[Scene] = []
        rows: list[_Row] = []
        while len(scenes) < self._recipe.pictures:
            shown = _draw_scenes(chance, self._recipe, room=self._recipe.pictures - len(scenes))
            scenes += shown
            if self._recipe.tokens:
                rows.append(self._row(shown, chance))
        renderings = [draw_picture(scene, self._recipe.size_px, chance) for scene in scenes]
        labels = [patch_labels(boxes, self._side) for _, boxes in renderings]
        return Batch(
            pixels=torch.from_numpy(np.stack([pixels for pixels, _ in renderings])),
            window=(chance.randint(0, self._room), chance.randint(0, self._room)),
            patches=torch.from_numpy(np.stack(labels)),
            token_ids=_padded([row.token_ids for row in rows], 0),
            positions=_padded([row.positions for row in rows], 0),
            branches=_padded([row.branches for row in rows], -1),
            targets=_padded([row.targets for row in rows], IGNORED),
            categories=tuple(tuple(row.categories) for row in rows),
        )

    def _row(self, scenes: Sequence[Scene], chance: random.Random) -> _Row:
        row = _Row([], [], [], [], [])
        while len(row.token_ids) < self._recipe.tokens:
            talk = _draw_conversation(scenes, chance)
            if talk:
                self._append(row, talk, len(scenes))
        return row

    def _append(self, row: _Row, talk: Conversation, pictures: int) -> None:
        """Adds a conversation as a branch; the first one brings the prefix along."""
        turns: list[Turn] = []
        ids: list[int] = []
        targets: list[int] = []
        prefix = 0
        for index, exchange in enumerate(talk.turns):
            text = TextPart(exchange.question)
            images = [ImagePart()] * pictures if index == 0 else []
            turns.append(Turn("user", (*images, text)))
            prompt = self._prompts.build(turns)
            if index == 0 and prompt.images:
                prefix = sum(prompt.images[-1]) + 1
            answer = self._tokenizer.encode_text(exchange.answer)
            answer.append(self._tokenizer.control_id(STOP_TOKENS[0]))
            targets += [IGNORED] * (len(prompt.token_ids) - 1 - len(targets)) + answer
            ids = prompt.token_ids + answer
            turns.append(Turn("assistant", (TextPart(exchange.answer),)))
        row.append(ids[:-1], targets, prefix, talk.category)


@dataclass(frozen=True, slots=True)
class _Row:
    token_ids: list[int]
    positions: list[int]
    branches: list[int]
    targets: list[int]
    categories: list[Category]

    def append(self, ids: list[int], targets: list[int], prefix: int, category: Category) -> None:
        self.categories.append(category)
        branch = len(self.categories)
        start = 0 if branch == 1 else prefix
        self.token_ids.extend(ids[start:])
        self.positions.extend(range(start, len(ids)))
        self.branches.extend([0] * (prefix - start) + [branch] * (len(ids) - prefix))
        self.targets.extend(targets[start:])


def draw_picture(
    scene: Scene, size_px: int, chance: random.Random
) -> tuple[np.ndarray, tuple[Box, ...]]:
    """The pixels that the model sees of a scene, uint8 [size, size, 3], with all that may happen to
    a picture on its way, and the boxes of what is on it."""
    width_px = height_px = size_px
    if chance.random() < 0.5:
        width_px, height_px = draw_canvas(chance, size_px)
    rendering = render(scene, width_px, height_px)
    if chance.random() < 0.3:
        file = encode_file(rendering, scene.background, chance)
        data = load_image(file, size_px, "corrected", _LIMITS)
        return np.frombuffer(data, np.uint8).reshape(size_px, size_px, 3), rendering.boxes
    return _squashed(rendering, size_px), rendering.boxes


def draw_canvas(chance: random.Random, size_px: int) -> tuple[int, int]:
    """Width and height of a picture that the model will see in `size_px`."""
    scale = chance.uniform(0.9, 2.4) * size_px
    aspect = chance.uniform(0.75, 1.6)
    return round(scale * aspect**0.5), round(scale / aspect**0.5)


def _squashed(rendering: Rendering, size_px: int) -> np.ndarray:
    image = rendering.image
    if image.size != (size_px, size_px):
        image = image.resize((size_px, size_px))
    return np.array(image)


def _draw_scenes(chance: random.Random, recipe: Recipe, room: int) -> list[Scene]:
    count = 1
    if recipe.tokens and room > 1:
        (count,) = chance.choices((0, 1, 2), (2, 83, 15))
    kinds: list[Kind] = ["figures", "figures", "figures", "labels", "labels", "both", "both"]
    if not recipe.tokens:
        kinds = ["figures", "labels", "labels", "both", "both"]
    while True:
        scenes = [
            draw_scene(chance, chance.choice(kinds), grid=recipe.grid, held_out=False)
            for _ in range(count)
        ]
        if count < 2 or conversation(scenes, "two pictures", "en", chance, held_out=False):
            return scenes


def _draw_conversation(scenes: Sequence[Scene], chance: random.Random) -> Conversation | None:
    (category,) = chance.choices(CATEGORIES, [WEIGHTS[category] for category in CATEGORIES])
    if len(scenes) != 1:
        category = "two pictures" if scenes else "other"
    return conversation(scenes, category, chance.choice(LANGUAGES), chance, held_out=False)


def patch_labels(boxes: Sequence[Box], side: int) -> np.ndarray:
    """int64 [side * side, 4], see `Batch.patches`: what covers the middle of each patch."""
    labels = np.zeros((side, side, len(PATCH_CLASSES)), np.int64)
    colours = list(COLOURS)
    for box in boxes:
        row, column = _middle_patch(box, side)
        # The middle of patch i is at i + 0.5. A narrow box gets the patch of its own middle.
        left, right = (round(edge * side) for edge in (box.left, box.right))
        top, bottom = (round(edge * side) for edge in (box.top, box.bottom))
        if right <= left:
            left, right = column, column + 1
        area = labels[max(top, 0) : max(bottom, top + 1), max(left, 0) : right]
        area[..., 1] = colours.index(box.colour) + 1
        if box.name in SHAPES:
            area[..., 0] = SHAPES.index(box.name) + 1
            labels[row, column, 3] = LONGEST_LABEL + 1
        else:
            area[..., 2] = CHARACTERS.index(box.name) + 1
            area[..., 3] = box.index + 1
    return labels.reshape(side * side, len(PATCH_CLASSES))


def _middle_patch(box: Box, side: int) -> tuple[int, int]:
    """Row and column."""
    return int((box.top + box.bottom) / 2 * side), int((box.left + box.right) / 2 * side)


def _padded(rows: Sequence[Sequence[int]], filler: int) -> Tensor:
    length = max(map(len, rows), default=0)
    return torch.tensor([[*row, *[filler] * (length - len(row))] for row in rows])
