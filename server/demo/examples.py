"""Training batches: pictures with many conversations about each, as tensors.

The conversations about one picture share its tokens: they are branches behind a common prefix, and
none sees another one. To each it is as if it stood alone behind the picture, with the positions
that it would have there, so training sees exactly the prompts that the server will build.

Half of the examples without labels hand the tokens of their pictures over with rows and columns
swapped, and ask about scenes that are swapped alike. Without them the model would read a token's
place from what the tower wrote into it, and never notice in which order the tokens come.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from server.demo.mentions import MENTION_CLASSES, NOTHING, UNKNOWN, Labels, find_mentions
from server.demo.pictures import Wear, draw_picture, patch_labels
from server.demo.questions import CATEGORIES, Category, Conversation, Fact, conversation
from server.demo.scenes import Kind, Scene, draw_scene
from server.demo.words import LANGUAGES
from server.frontend.prompt import PromptBuilder
from server.frontend.template import ImagePart, TextPart, Turn
from server.frontend.tokenizer import STOP_TOKENS, Tokenizer
from server.model.spec import ModelSpec

IGNORED = UNKNOWN
"""Target of a token that is not learned."""

LENGTH_UNIT = 16
"""Examples are padded to multiples of it: what multiplies makes itself ready for each new shape."""

MOST_DRAWS = 40
"""Of conversations about one picture, many of which fit none or are drawn already."""

WEIGHTS: dict[Category, float] = {
    "shapes": 0.8,
    "colours": 0.8,
    "counting": 1.6,
    "position": 1.4,
    "reading": 2.5,
    "two pictures": 1.0,
    "second turn": 0.7,
    "json": 0.3,
    "description": 0.3,
    "other": 0.1,
}
"""How often questions of each category are asked where a recipe does not say."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the batches of one stage of training are made of."""

    size_px: int
    grid: int
    pictures: int
    """In a batch; an example has one of them, some have two or none."""
    tokens: int
    """Of an example: conversations are added up to this length; 0 trains the vision tower alone."""
    kinds: tuple[Kind, ...] = ("figures", "figures", "figures", "labels", "labels", "both", "both")
    """Of scenes, in turn at random."""
    pairs: int = 22
    """Examples in a hundred that show two pictures."""
    weights: Mapping[Category, float] = field(default_factory=lambda: WEIGHTS)
    """How often questions of each category are asked."""
    wear: Wear = field(default_factory=Wear)


@dataclass(frozen=True, slots=True)
class Batch:
    """B examples of up to L tokens with N pictures in all."""

    pixels: Tensor
    """uint8 [N, size, size, 3]"""
    window: tuple[int, int]
    """Row and column of the vision tower's grid where pictures smaller than the model's begin."""
    patches: Tensor
    """int64 [N, patches, 4]: shape, colour, character and part, 0 for none; see `PATCH_CLASSES`."""
    turned: Tensor
    """bool [N]: pictures whose tokens are handed over with rows and columns swapped."""
    token_ids: Tensor
    """int64 [B, L], as are the next three."""
    positions: Tensor
    branches: Tensor
    """0 for the prefix, -1 for padding."""
    targets: Tensor
    """The token that follows, or `IGNORED`."""
    mentions: Tensor
    """int64 [B, L, 5]: at the last token of words that name figures, what they name, by
    `MENTION_CLASSES`; `IGNORED` elsewhere."""
    categories: tuple[tuple[Category, ...], ...]
    """Of each example's branches, from 1 on."""


class Batches:
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
        turned: list[bool] = []
        rows: list[_Row] = []
        while len(scenes) < self._recipe.pictures:
            shown = _draw_scenes(chance, self._recipe, room=self._recipe.pictures - len(scenes))
            scenes += shown
            turn = chance.random() < 0.5 and not any(scene.labels for scene in shown)
            turned += [turn] * len(shown)
            if self._recipe.tokens:
                asked = [scene.turned() for scene in shown] if turn else shown
                rows.append(self._row(asked, chance))
        recipe = self._recipe
        renderings = [draw_picture(scene, recipe.size_px, recipe.wear, chance) for scene in scenes]
        labels = [patch_labels(boxes, self._side) for _, boxes in renderings]
        return Batch(
            pixels=torch.from_numpy(np.stack([pixels for pixels, _ in renderings])),
            window=(chance.randint(0, self._room), chance.randint(0, self._room)),
            patches=torch.from_numpy(np.stack(labels)),
            turned=torch.tensor(turned),
            token_ids=_padded([row.token_ids for row in rows], 0),
            positions=_padded([row.positions for row in rows], 0),
            branches=_padded([row.branches for row in rows], -1),
            targets=_padded([row.targets for row in rows], IGNORED),
            mentions=_padded_labels([row.mentions for row in rows]),
            categories=tuple(tuple(row.categories) for row in rows),
        )

    def _row(self, scenes: Sequence[Scene], chance: random.Random) -> _Row:
        row = _Row([], [], [], [], [], [])
        asked: list[tuple[Fact, ...]] = []
        for _ in range(MOST_DRAWS):
            talk = _draw_conversation(scenes, self._recipe.weights, chance)
            # What is asked again teaches little, and costs as much.
            if talk and talk.facts not in asked:
                asked.append(talk.facts)
                self._append(row, talk, scenes)
            if len(row.token_ids) >= self._recipe.tokens:
                break
        return row

    def _append(self, row: _Row, talk: Conversation, scenes: Sequence[Scene]) -> None:
        """Adds a conversation as a branch; the first one brings the prefix along."""
        turns: list[Turn] = []
        ids: list[int] = []
        targets: list[int] = []
        mentions: dict[int, Labels] = {}
        prefix = 0
        for index, exchange in enumerate(talk.turns):
            images = [ImagePart()] * len(scenes) if index == 0 else []
            asked = Turn("user", (*images, TextPart(exchange.question)))
            prompt = self._prompts.build([*turns, asked])
            if scenes:
                mentions |= self._mentions(turns, asked, prompt.token_ids, scenes)
            turns.append(asked)
            if index == 0 and prompt.images:
                prefix = sum(prompt.images[-1]) + 1
            answer = self._tokenizer.encode_text(exchange.answer)
            answer.append(self._tokenizer.control_id(STOP_TOKENS[0]))
            targets += [IGNORED] * (len(prompt.token_ids) - 1 - len(targets)) + answer
            ids = prompt.token_ids + answer
            turns.append(Turn("assistant", (TextPart(exchange.answer),)))
        labels = [mentions.get(index, NOTHING) for index in range(len(ids) - 1)]
        row.append(ids[:-1], targets, labels, prefix, talk.category)

    def _mentions(
        self, before: list[Turn], asked: Turn, ids: list[int], scenes: Sequence[Scene]
    ) -> dict[int, Labels]:
        """What the question's words name, by the index of their last token."""
        *images, question = asked.parts
        assert isinstance(question, TextPart)
        found = {}
        for end, labels in find_mentions(question.text, scenes):
            cut = Turn("user", (*images, TextPart(question.text[:end])))
            beginning = self._prompts.build([*before, cut]).token_ids
            # As far as both prompts are the same, the question has not gone on.
            same = zip(ids, beginning, strict=False)
            length = next(n for n, (one, other) in enumerate(same) if one != other)
            found[length - 1] = labels
        return found


@dataclass(frozen=True, slots=True)
class _Row:
    token_ids: list[int]
    positions: list[int]
    branches: list[int]
    targets: list[int]
    mentions: list[Labels]
    categories: list[Category]

    def append(
        self,
        ids: list[int],
        targets: list[int],
        mentions: list[Labels],
        prefix: int,
        category: Category,
    ) -> None:
        self.categories.append(category)
        branch = len(self.categories)
        start = 0 if branch == 1 else prefix
        self.token_ids.extend(ids[start:])
        self.positions.extend(range(start, len(ids)))
        self.branches.extend([0] * (prefix - start) + [branch] * (len(ids) - prefix))
        self.targets.extend(targets[start:])
        self.mentions.extend(mentions[start:])


def _draw_scenes(chance: random.Random, recipe: Recipe, room: int) -> list[Scene]:
    count = 1
    if recipe.tokens and room > 1:
        (count,) = chance.choices((0, 1, 2), (2, 98 - recipe.pairs, recipe.pairs))
    while True:
        scenes = [
            draw_scene(chance, chance.choice(recipe.kinds), grid=recipe.grid, held_out=False)
            for _ in range(count)
        ]
        if count < 2 or conversation(scenes, "two pictures", "en", chance):
            return scenes


def _draw_conversation(
    scenes: Sequence[Scene], weights: Mapping[Category, float], chance: random.Random
) -> Conversation | None:
    (category,) = chance.choices(CATEGORIES, [weights[category] for category in CATEGORIES])
    if len(scenes) != 1:
        category = "two pictures" if scenes else "other"
    return conversation(scenes, category, chance.choice(LANGUAGES), chance)


def _padded(rows: Sequence[Sequence[int]], filler: int) -> Tensor:
    length = max(map(len, rows), default=0)
    length += -length % LENGTH_UNIT
    return torch.tensor([[*row, *[filler] * (length - len(row))] for row in rows])


def _padded_labels(rows: list[list[Labels]]) -> Tensor:
    parts = range(len(MENTION_CLASSES))
    columns = ([[labels[part] for labels in row] for row in rows] for part in parts)
    return torch.stack([_padded(column, IGNORED) for column in columns], dim=-1)
