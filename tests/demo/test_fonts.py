from __future__ import annotations

import string

import pytest

from server.demo.fonts import DIGIT_FONTS, LETTER_FONTS, glyph

ALPHABETS = dict.fromkeys(DIGIT_FONTS, string.digits)
ALPHABETS |= dict.fromkeys(LETTER_FONTS, string.digits + string.ascii_uppercase)


@pytest.mark.parametrize("font", ALPHABETS)
def test_every_character_looks_different(font: str) -> None:
    masks = [glyph(font, character, 28) for character in ALPHABETS[font]]
    assert len({(mask.size, mask.tobytes()) for mask in masks}) == len(masks)


@pytest.mark.parametrize("font", ALPHABETS)
@pytest.mark.parametrize("height_px", [8, 23, 60])
def test_glyphs_are_as_high_as_asked_and_filled(font: str, height_px: int) -> None:
    for character in ALPHABETS[font]:
        mask = glyph(font, character, height_px)
        assert mask.height == height_px
        left, top, right, bottom = mask.getbbox() or (0, 0, 0, 0)
        assert bottom - top > height_px * 0.8
        assert right - left >= 1
