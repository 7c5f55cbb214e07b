from __future__ import annotations

import random

import pytest

from server.demo.scenes import Kind, Scene, draw_scene
from server.demo.words import HELD_OUT_WORDS, REAL_WORDS


def scenes(kind: Kind, count: int = 200, *, grid: int = 3, held_out: bool = False) -> list[Scene]:
    chance = random.Random(1)
    return [draw_scene(chance, kind, grid=grid, held_out=held_out) for _ in range(count)]


def test_a_seed_draws_the_same_scenes_again() -> None:
    assert scenes("both") == scenes("both")


@pytest.mark.parametrize("grid", [2, 3])
def test_nothing_stands_on_anything_else(grid: int) -> None:
    for scene in scenes("both", grid=grid):
        cells = [(figure.row, figure.column) for figure in scene.figures]
        assert len(set(cells)) == len(cells)
        assert cells == sorted(cells)
        rows = [label.row for label in scene.labels]
        assert len(set(rows)) == len(rows)
        assert not {row for row, _ in cells} & set(rows)


def test_scenes_have_one_to_six_figures() -> None:
    assert {len(scene.figures) for scene in scenes("figures")} == {1, 2, 3, 4, 5, 6}


def test_a_count_can_be_asked_for() -> None:
    scene = draw_scene(random.Random(0), "figures", count=4, held_out=False)
    assert len(scene.figures) == 4


def test_held_out_words_are_shown_only_when_asked_for() -> None:
    assert not set(HELD_OUT_WORDS) & set(REAL_WORDS)
    shown = {label.text for scene in scenes("labels", 1000) for label in scene.labels}
    held_out = {
        label.text for scene in scenes("labels", 1000, held_out=True) for label in scene.labels
    }
    assert not shown & set(HELD_OUT_WORDS)
    assert held_out >= set(HELD_OUT_WORDS)


def test_labels_are_a_word_and_a_number_at_most() -> None:
    for scene in scenes("labels"):
        kinds = [label.kind for label in scene.labels]
        assert len(set(kinds)) == len(kinds)
        for label in scene.labels:
            assert 1 <= len(label.text) <= 6
            assert label.text == label.text.upper()


def test_places_are_named_alike_on_both_grids() -> None:
    small, large = scenes("figures", grid=2), scenes("figures", grid=3)
    corners = {scene.place(figure) for scene in small for figure in scene.figures}
    assert corners == {"top left", "top right", "bottom left", "bottom right"}
    assert len({scene.place(figure) for scene in large for figure in scene.figures}) == 9


def test_a_turned_scene_has_rows_and_columns_swapped() -> None:
    for scene in scenes("both"):
        turned = scene.turned()
        assert turned.turned() == scene
        places = {(figure.name, figure.row, figure.column) for figure in scene.figures}
        assert {(f.name, f.column, f.row) for f in turned.figures} == places
        cells = [(figure.row, figure.column) for figure in turned.figures]
        assert cells == sorted(cells)
