from __future__ import annotations

import random

import torch

from server.demo.pictures import LONGEST_LABEL, patch_labels
from server.demo.render import render
from server.demo.scenes import draw_scene


def test_every_figure_has_one_middle_and_characters_count_up() -> None:
    chance = random.Random(1)
    for _ in range(20):
        scene = draw_scene(chance, "both", held_out=False)
        labels = torch.from_numpy(patch_labels(render(scene, 224, 224).boxes, 16))
        assert (labels[:, 3] == LONGEST_LABEL + 1).sum() == len(scene.figures)
        (label,) = scene.labels
        parts = set(labels[labels[:, 2] > 0, 3].tolist())
        assert parts == set(range(1, len(label.text) + 1))
