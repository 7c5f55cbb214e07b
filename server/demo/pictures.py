"""Training pictures as the model gets them, and what each of their patches shows."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from server.demo.render import Box, Rendering, encode_file, render
from server.demo.scenes import Scene
from server.demo.words import COLOURS, SHAPES
from server.frontend.images import ImageLimits, load_image

CHARACTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
LONGEST_LABEL = 6
PATCH_CLASSES = (len(SHAPES) + 1, len(COLOURS) + 1, len(CHARACTERS) + 1, LONGEST_LABEL + 2)
"""What a patch may show: no shape or one, no colour or one, no character or one, and its part: the
how-manieth character of a label, or the middle of a figure, which comes last. Parts are what
reading in order and counting need."""

_LIMITS = ImageLimits(max_bytes=1 << 24, max_pixels=1 << 24)


@dataclass(frozen=True, slots=True)
class Wear:
    """What happens to pictures on their way."""

    canvases: float = 0.5
    """Part of them that have another size and aspect than the model's."""
    files: float = 0.3
    """Part of them that go through a file."""


def draw_picture(
    scene: Scene, size_px: int, wear: Wear, chance: random.Random
) -> tuple[np.ndarray, tuple[Box, ...]]:
    """The pixels that the model sees of a scene, uint8 [size, size, 3], and the boxes of what is on
    it."""
    width_px = height_px = size_px
    if chance.random() < wear.canvases:
        width_px, height_px = draw_canvas(chance, size_px)
    rendering = render(scene, width_px, height_px)
    if chance.random() < wear.files:
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
