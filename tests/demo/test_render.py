from __future__ import annotations

import io
import random

import numpy as np
import pytest
from PIL import Image

from server.demo.render import encode_file, render
from server.demo.scenes import draw_scene
from server.demo.words import COLOURS
from server.frontend.images import ImageLimits, load_image

SIZES = [(224, 224), (640, 480), (180, 300)]


@pytest.mark.parametrize("size", SIZES)
def test_everything_is_where_its_box_says(size: tuple[int, int]) -> None:
    chance = random.Random(2)
    for _ in range(30):
        scene = draw_scene(chance, "both", held_out=False)
        rendering = render(scene, *size)
        pixels = np.asarray(rendering.image).astype(int)
        assert len(rendering.boxes) == len(scene.figures) + sum(
            len(label.text) for label in scene.labels
        )
        for box in rendering.boxes:
            assert 0 <= box.left < box.right <= 1
            assert 0 <= box.top < box.bottom <= 1
            columns = slice(int(box.left * size[0]), int(np.ceil(box.right * size[0])))
            rows = slice(int(box.top * size[1]), int(np.ceil(box.bottom * size[1])))
            distance = np.abs(pixels[rows, columns] - COLOURS[box.colour]).max(-1)
            assert distance.min() < 40, box


def test_a_scene_looks_the_same_again() -> None:
    scene = draw_scene(random.Random(3), "both", held_out=False)
    first, second = (render(scene, 224, 224).image.tobytes() for _ in range(2))
    assert first == second


def test_files_are_of_every_kind_and_show_the_same() -> None:
    chance = random.Random(4)
    kinds = set()
    for _ in range(20):
        scene = draw_scene(chance, "figures", held_out=False)
        rendering = render(scene, 300, 200)
        file = encode_file(rendering, scene.background, chance)
        with Image.open(io.BytesIO(file)) as image:
            kinds.add((image.format, image.mode))
        limits = ImageLimits(max_bytes=1 << 24, max_pixels=1 << 24)
        seen = np.frombuffer(load_image(file, 224, "corrected", limits), np.uint8)
        plain = np.asarray(rendering.image.resize((224, 224))).reshape(-1)
        # Transparency becomes white where the background was tinted; JPEG blurs the edges.
        assert np.abs(seen.astype(int) - plain).mean() < 35
    assert kinds == {("JPEG", "RGB"), ("PNG", "RGB"), ("PNG", "RGBA")}
