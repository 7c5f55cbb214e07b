"""What the demo pictures show, and how English and Chinese call it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")

COLOURS: Mapping[str, tuple[int, int, int]] = {
    "red": (214, 38, 40),
    "orange": (246, 142, 22),
    "yellow": (240, 216, 34),
    "green": (42, 160, 58),
    "blue": (38, 82, 212),
    "purple": (146, 52, 172),
    "black": (26, 26, 28),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")

PLACES = (
    ("top left", "top middle", "top right"),
    ("middle left", "centre", "middle right"),
    ("bottom left", "bottom middle", "bottom right"),
)
"""By row and column."""

PLURALS = {shape: f"{shape}es" if shape == "cross" else f"{shape}s" for shape in SHAPES}

_COLOURS_ZH = {
    "red": "红色",
    "orange": "橙色",
    "yellow": "黄色",
    "green": "绿色",
    "blue": "蓝色",
    "purple": "紫色",
    "black": "黑色",
}
_SHAPES_ZH = {
    "circle": "圆形",
    "square": "正方形",
    "triangle": "三角形",
    "star": "星形",
    "cross": "十字形",
    "ring": "圆环",
}
_PLACES_ZH = (("左上", "中上", "右上"), ("左中", "正中", "右中"), ("左下", "中下", "右下"))

CHINESE: Mapping[str, str] = {
    **_COLOURS_ZH,
    **_SHAPES_ZH,
    **{PLURALS[shape]: name for shape, name in _SHAPES_ZH.items()},
    **{
        f"{colour} {shape}": f"{colour_zh}的{shape_zh}"
        for colour, colour_zh in _COLOURS_ZH.items()
        for shape, shape_zh in _SHAPES_ZH.items()
    },
    **{PLACES[row][column]: _PLACES_ZH[row][column] for row in range(3) for column in range(3)},
    "left": "左边",
    "right": "右边",
    "above": "上面",
    "below": "下面",
    "yes": "是",
    "no": "不是",
    "word": "单词",
    "number": "数字",
}


def article(noun: str) -> str:
    return "an" if noun[0] in "aeiou" else "a"


_REAL_WORDS = """
    APPLE BANK BEAR BIRD BOAT BOOK BREAD BUS CAFE CAR CAT CLOCK CLOUD COFFEE DANGER DOG DOOR EXIT
    FIRE FISH FLOWER FROG GARDEN GATE GOLD HELLO HORSE HOTEL HOUSE ICE KEY LAMP LEMON LIGHT LION
    MILK MONEY MOON MOUSE MUSIC NIGHT NORTH OPEN ORANGE PARK PIZZA PLANE QUEEN RADIO RAIN RIVER
    ROAD SALE SHIP SHOP SNOW SOUTH STAR STONE STOP SUGAR SUN TABLE TAXI TEA TIGER TRAIN TREE WATER
    WIND WINTER WOLF ZEBRA ZERO
"""
REAL_WORDS = tuple(_REAL_WORDS.split())
"""Some of what pictures say; the rest is drawn letter by letter."""

_HELD_OUT_WORDS = """
    BEACH BRIDGE CANDY CHAIR CITY CLOSED CROWN DESERT EAGLE ENTER FOREST GLASS GRAPE HILL ISLAND
    JUICE KITE LEAF MAPLE NURSE OCEAN PAPER PEACH PILOT ROBOT SALT SILVER SPOON SPRING TOWER VIOLIN
    WAGON WEST YELLOW ZOO
"""
HELD_OUT_WORDS = tuple(_HELD_OUT_WORDS.split())
"""Words that no training picture shows but by accident of letters; evaluation asks for them."""
