"""Line charts as SVG text: no script, no font, nothing fetched."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 520, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 34, 46
COLOURS = ("#1f6fb4", "#d1601f", "#2c8a4b", "#b3263a", "#6f4ba8", "#7a5a45", "#c2419c", "#5c6670")


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    points: Sequence[tuple[float, float]]


def chart(
    title: str, x_label: str, y_label: str, lines: Sequence[Line], *, dots: bool = True
) -> str:
    """A chart from zero upwards, with a legend where there is more than one line."""
    points = [point for line in lines for point in line.points]
    x_low = min((x for x, _ in points), default=0.0)
    x_ticks = ticks(0.0 if x_low >= 0 else x_low, max((x for x, _ in points), default=1.0))
    y_ticks = ticks(0.0, max((y for _, y in points), default=1.0))
    place = _Place(x_ticks[0], x_ticks[-1], y_ticks[0], y_ticks[-1])
    turn = f"translate(13,{TOP + place.height / 2:g}) rotate(-90)"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        _text(WIDTH / 2, 15, title, 'text-anchor="middle" font-weight="bold" font-size="13"'),
        *_grid(place, x_ticks, y_ticks),
        _text(LEFT + place.width / 2, HEIGHT - 8, x_label, 'text-anchor="middle"'),
        _text(0, 0, y_label, f'text-anchor="middle" transform="{turn}"'),
    ]
    for index, line in enumerate(lines):
        parts += _line(place, line, COLOURS[index % len(COLOURS)], dots=dots)
    if len(lines) > 1:
        parts += _legend(lines)
    return "\n".join([*parts, "</svg>"])


def ticks(low: float, high: float) -> list[float]:
    """Round numbers that enclose the range, about five."""
    span = high - low if high > low else abs(high) or 1.0
    raw = span / 4
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw)
    first, last = math.floor(low / step), math.ceil((low + span) / step)
    return [round(index * step, 12) for index in range(first, last + 1)]


@dataclass(frozen=True, slots=True)
class _Place:
    x_low: float
    x_high: float
    y_low: float
    y_high: float
    width: float = WIDTH - LEFT - RIGHT
    height: float = HEIGHT - TOP - BOTTOM

    def x(self, value: float) -> float:
        return LEFT + (value - self.x_low) / (self.x_high - self.x_low) * self.width

    def y(self, value: float) -> float:
        return TOP + self.height - (value - self.y_low) / (self.y_high - self.y_low) * self.height


def _grid(place: _Place, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> list[str]:
    parts = []
    for value in y_ticks:
        y = place.y(value)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(_text(LEFT - 5, y + 4, f"{value:g}", 'text-anchor="end"'))
    for value in x_ticks:
        x = place.x(value)
        parts.append(f'<path d="M{x:.1f} {TOP + place.height}v4" stroke="#888"/>')
        parts.append(_text(x, TOP + place.height + 16, f"{value:g}", 'text-anchor="middle"'))
    return parts


def _line(place: _Place, line: Line, colour: str, *, dots: bool) -> list[str]:
    at = [(place.x(x), place.y(y)) for x, y in line.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
    parts = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>']
    if dots:
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{colour}"/>' for x, y in at]
    return parts


def _legend(lines: Sequence[Line]) -> list[str]:
    parts = []
    for index, line in enumerate(lines):
        y = TOP + 10 + 14 * index
        colour = COLOURS[index % len(COLOURS)]
        parts.append(f'<path d="M{LEFT + 8} {y - 4}h14" stroke="{colour}" stroke-width="2"/>')
        parts.append(_text(LEFT + 26, y, line.name, ""))
    return parts


def _text(x: float, y: float, text: str, attributes: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" fill="#333" {attributes}>{escape(text)}</text>'
