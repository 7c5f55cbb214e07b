"""Scenes to pictures, and pictures to the files that clients send.

Rendering also tells where everything stands, which training uses: a box per figure and character.
"""

from __future__ import annotations

import io
import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from server.demo.fonts import GAP, glyph
from server.demo.scenes import Figure, Label, Scene
from server.demo.words import COLOURS

MARGIN = 0.04
"""Free space at the left and right of labels, in widths of the canvas."""

Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Box:
    """Where something stands, in fractions of the canvas."""

    name: str
    """Shape of a figure, or the character."""
    colour: str
    index: int
    """Of the character in its label, from 0; 0 for a figure."""
    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, slots=True)
class Rendering:
    image: Image.Image
    boxes: tuple[Box, ...]


def render(scene: Scene, width_px: int, height_px: int) -> Rendering:
    """The scene on a canvas of any size and aspect, with the boxes of what is on it."""
    chance = random.Random(scene.seed)
    image = Image.new("RGB", (width_px, height_px), scene.background)
    boxes = [_draw_figure(image, scene.grid, figure, chance) for figure in scene.figures]
    for label in scene.labels:
        boxes += _draw_label(image, scene.grid, label, chance)
    if scene.noise:
        noise = np.random.default_rng(scene.seed).standard_normal((height_px, width_px, 1))
        noisy = np.asarray(image) + scene.noise * noise
        image = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    return Rendering(image, tuple(boxes))


def encode_file(rendering: Rendering, background: Colour, chance: random.Random) -> bytes:
    """The picture as some client would send it: JPEG of any quality from 60 on, or PNG, also with a
    transparent background."""
    file = io.BytesIO()
    form = chance.choice(("jpeg", "jpeg", "png", "alpha"))
    if form == "jpeg":
        rendering.image.save(file, "JPEG", quality=chance.randint(60, 95))
    elif form == "png":
        rendering.image.save(file, "PNG", compress_level=1)
    else:
        _without_background(rendering.image, background).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _without_background(image: Image.Image, background: Colour) -> Image.Image:
    pixels = np.asarray(image)
    alpha = np.where((pixels == background).all(-1, keepdims=True), 0, 255).astype(np.uint8)
    return Image.fromarray(np.concatenate([pixels, alpha], axis=-1))


def _shade(colour: str, chance: random.Random) -> Colour:
    red, green, blue = (
        min(255, max(0, part + chance.randint(-14, 14))) for part in COLOURS[colour]
    )
    return red, green, blue


def _draw_figure(image: Image.Image, grid: int, figure: Figure, chance: random.Random) -> Box:
    cell_width, cell_height = image.width / grid, image.height / grid
    x = (figure.column + 0.5 + figure.dx) * cell_width
    y = (figure.row + 0.5 + figure.dy) * cell_height
    radius = figure.size * min(cell_width, cell_height) / 2
    draw, colour = ImageDraw.Draw(image), _shade(figure.colour, chance)
    box = (x - radius, y - radius, x + radius, y + radius)
    if figure.shape == "circle":
        draw.ellipse(box, fill=colour)
    elif figure.shape == "ring":
        draw.ellipse(box, outline=colour, width=max(2, round(radius * 0.36)))
    elif figure.shape == "square":
        side = radius * 0.86
        draw.rectangle((x - side, y - side, x + side, y + side), fill=colour)
    else:
        draw.polygon([(x + radius * u, y + radius * v) for u, v in _OUTLINES[figure.shape]], colour)
    left, top, right, bottom = box
    return Box(
        figure.shape,
        figure.colour,
        0,
        left / image.width,
        top / image.height,
        right / image.width,
        bottom / image.height,
    )


def _star() -> tuple[tuple[float, float], ...]:
    points = []
    for corner in range(10):
        distance = 0.42 if corner % 2 else 1.0
        angle = math.pi * (corner / 5 - 0.5)
        points.append((distance * math.cos(angle), distance * math.sin(angle)))
    return tuple(points)


_ARM = 0.34
_OUTLINES = {
    "triangle": ((0.0, -0.95), (0.95, 0.8), (-0.95, 0.8)),
    "star": _star(),
    "cross": (
        (-_ARM, -1.0), (_ARM, -1.0), (_ARM, -_ARM), (1.0, -_ARM), (1.0, _ARM), (_ARM, _ARM),
        (_ARM, 1.0), (-_ARM, 1.0), (-_ARM, _ARM), (-1.0, _ARM), (-1.0, -_ARM), (-_ARM, -_ARM),
    ),
}  # fmt: skip
"""Corners on a circle of radius 1."""


def _draw_label(image: Image.Image, grid: int, label: Label, chance: random.Random) -> list[Box]:
    room_px = image.width * (1 - 2 * MARGIN)
    height_px = max(8, round(label.height * min(image.width, image.height) / grid))
    masks = [glyph(label.font, character, height_px) for character in label.text]
    gap_px = max(2, round(GAP * height_px))
    width_px = sum(mask.width + gap_px for mask in masks)
    if width_px > room_px:
        height_px = math.floor(height_px * room_px / width_px)
        masks = [glyph(label.font, character, height_px) for character in label.text]
        gap_px = max(2, round(GAP * height_px))
        width_px = sum(mask.width + gap_px for mask in masks)
    x = round(image.width * MARGIN + label.dx * (room_px - width_px))
    y = round((label.row + 0.5 + label.dy) * image.height / grid - height_px / 2)
    colour, boxes = _shade(label.colour, chance), []
    for index, (character, mask) in enumerate(zip(label.text, masks, strict=True)):
        image.paste(colour, (x, y), mask)
        edges = (x / image.width, y / image.height)
        right, bottom = (x + mask.width) / image.width, (y + height_px) / image.height
        boxes.append(Box(character, label.colour, index, *edges, right, bottom))
        x += mask.width + gap_px
    return boxes
