from __future__ import annotations

import pytest

from server.errors import StartupError
from server.layout import GIB, Gpus, Layout, Split
from server.model.spec import parse_config
from server.settings import Quantization
from tests.model.test_spec import PUBLISHED

REAL = parse_config(PUBLISHED)


@pytest.mark.parametrize(
    ("gpus", "contexts"),
    [("1x141GB", 50), ("2x80GB", 60), ("4x48GB", 80), ("8x24GB", 70), ("3x48GB", 40)],
)
def test_the_40b_fits_what_it_should(gpus: str, contexts: int) -> None:
    layout = Layout.make(REAL, Gpus.parse(gpus))
    assert layout.dtype == "bfloat16"
    assert layout.fits
    assert contexts * 0.75 < layout.contexts < contexts * 1.35


@pytest.mark.parametrize(
    ("gpus", "quantization"),
    [("1x80GB", "int8"), ("1x80GB", "fp8"), ("1x48GB", "int4"), ("2x24GB", "int4")],
)
def test_fewer_bits_fit_smaller_cards(gpus: str, quantization: Quantization) -> None:
    assert not Layout.make(REAL, Gpus.parse(gpus)).fits
    assert Layout.make(REAL, Gpus.parse(gpus), quantization=quantization).fits


@pytest.mark.parametrize(
    ("gpus", "stages"), [("2x80GB", 2), ("4x48GB", 2), ("4x48GB", 4), ("8x24GB", 4), ("16x24GB", 2)]
)
def test_stages_fit_the_same_cards(gpus: str, stages: int) -> None:
    cards = Gpus.parse(gpus)
    layout = Layout.make(REAL, cards, Split.of(cards, None, stages))
    assert layout.fits
    assert len(layout.ranks) == cards.count
    assert len(layout.stage_floors_ms) == stages


def test_a_tower_for_each_rank_costs_its_memory() -> None:
    together, apart = (
        Layout.make(REAL, Gpus(4, 48), Split(4, vision_tp=vision_tp)) for vision_tp in (4, 1)
    )
    assert apart.ranks[0].vision / GIB == pytest.approx(10.6, abs=0.1)
    assert together.ranks[0].vision / GIB == pytest.approx(2.65, abs=0.1)
    assert apart.kv_tokens < together.kv_tokens


def test_a_slow_link_is_spared_where_memory_allows() -> None:
    cards = Gpus(4, 48)
    fast, slow = (
        Layout.make(REAL, cards, Split.of(cards, None, None, slow_link=slow))
        for slow in (False, True)
    )
    assert (fast.vision_tp, slow.vision_tp) == (4, 2)
    asked = Split.of(cards, None, None, 4, slow_link=True)
    assert Layout.make(REAL, cards, asked).vision_tp == 4, "the operator has the last word"


def test_the_floor_is_one_read_of_the_language_model() -> None:
    assert Layout.make(REAL, Gpus(1, 141)).stage_floors_ms == [pytest.approx(16.0, abs=0.3)]
    first, second = Layout.make(REAL, Gpus(2, 141), Split(1, 2)).stage_floors_ms
    assert first < second, "the first stage has the tower and fewer layers"
    assert first + second == pytest.approx(16.0, abs=0.3)


@pytest.mark.parametrize("text", ["", "x", "0x48GB", "129x48GB", "4x", "4x0GB", "4 48"])
def test_a_set_of_gpus_is_written_in_one_way(text: str) -> None:
    with pytest.raises(StartupError, match="write 4x48GB"):
        Gpus.parse(text)


def test_one_card_needs_no_number() -> None:
    assert Gpus.parse("80gb") == Gpus(1, 80)


@pytest.mark.parametrize(
    ("count", "size", "stages", "split"),
    [
        (4, None, None, Split(4, 1)),
        (4, 2, None, Split(2, 2)),
        (4, None, 4, Split(1, 4)),
        (16, None, 2, Split(8, 2)),
        (6, 3, 2, Split(3, 2)),
    ],
)
def test_what_is_not_said_follows_from_the_cards(
    count: int, size: int | None, stages: int | None, split: Split
) -> None:
    assert Split.of(Gpus(count, 48), size, stages) == split


@pytest.mark.parametrize(
    ("count", "size", "stages", "message"),
    [
        (4, 3, None, "--gpus 4x48GB: .* 3 x .* 1 are 3 ranks, and each card takes one"),
        (4, None, 8, "are 0 ranks"),
        (2, 2, 2, "are 4 ranks"),
        (9, None, None, "at most 8 ranks share a layer; .* --pipeline-parallel-size"),
        (32, 1, None, "--gpus 32x48GB: .* 32 stages, .* --pipeline-parallel-size is at most 16"),
    ],
)
def test_each_card_has_a_rank(
    count: int, size: int | None, stages: int | None, message: str
) -> None:
    with pytest.raises(StartupError, match=message):
        Split.of(Gpus(count, 48), size, stages)


def test_no_number_of_towers_is_taken_for_another() -> None:
    with pytest.raises(StartupError, match="vision groups of 0 ranks"):
        Layout.make(REAL, Gpus(4, 48), Split(4, vision_tp=0))
