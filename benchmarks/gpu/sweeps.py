"""Which sizes are measured on an engine, each beside its floor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.gpu.engine import Engine
from benchmarks.gpu.roofline import Roofline
from server.runner.calibrate import measured_budget

Rows = list[dict[str, Any]]
Sweep = Callable[[Engine, Roofline, "Sizes"], Rows]


@dataclass(frozen=True, slots=True)
class Sizes:
    """What to measure."""

    contexts: tuple[int, ...] = (512, 1024, 2048)
    decode_rows: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128)
    prefills: tuple[tuple[int, int], ...] = (
        (64, 0),
        (128, 0),
        (320, 0),
        (512, 0),
        (1024, 0),
        (2048, 0),
        (512, 3000),
    )
    """New tokens, and those cached before them."""
    mixed_rows: tuple[int, ...] = (16, 64)
    mixed_context: int = 1024
    chunks: tuple[int, ...] = (64, 128, 256, 512)
    pictures: tuple[int, ...] = (1, 2, 4, 8, 16)


FULL = Sizes()
SHORT = Sizes(
    contexts=(1024,), decode_rows=(1, 16, 64), prefills=((320, 0), (2048, 0)), pictures=(1, 8)
)
"""For comparing implementations."""
TINY = Sizes((64,), (1, 4), ((64, 0), (16, 32)), (2,), 64, (32,), (1, 2))
"""For trying the script out."""


def beside(name: str, ms: float, floor_s: float) -> dict[str, Any]:
    """A figure and its floor."""
    return {"case": name, "ms": ms, "floor_ms": floor_s * 1e3, "share": floor_s * 1e3 / ms}


def decode(engine: Engine, roofline: Roofline, sizes: Sizes) -> Rows:
    """Steady steps; where there are graphs also what the host adds to them."""
    found: Rows = []
    for context in sizes.contexts:
        for rows in sizes.decode_rows:
            if not engine.fits(rows, context + 32):
                continue
            ms = engine.decode_ms(rows, context)
            row = beside(f"decode {rows} x {context}", ms, roofline.decode_s(rows, context))
            row["tokens_per_s"] = rows / ms * 1e3
            replay_ms = engine.replay_ms(rows, context)
            if replay_ms is not None:
                row["host_gap_ms"] = ms - replay_ms
            found.append(row)
    return found


def prefill(engine: Engine, roofline: Roofline, sizes: Sizes) -> Rows:
    found: Rows = []
    for tokens, past in sizes.prefills:
        ms = engine.prefill_ms(tokens, past)
        row = beside(f"prefill {tokens} behind {past}", ms, roofline.prefill_s(tokens, past))
        found.append(row | {"tokens_per_s": tokens / ms * 1e3})
    return found


def mixed(engine: Engine, roofline: Roofline, sizes: Sizes) -> Rows:
    """What a prompt's chunk costs those who decode beside it."""
    found: Rows = []
    context = sizes.mixed_context
    for rows in sizes.mixed_rows:
        for tokens in sizes.chunks:
            ms = engine.mixed_ms(rows, context, tokens)
            floor_s = roofline.mixed_s(rows, context, tokens)
            found.append(beside(f"{rows} x {context} beside a prefill of {tokens}", ms, floor_s))
    return found


def vision(engine: Engine, roofline: Roofline, sizes: Sizes) -> Rows:
    found: Rows = []
    for pictures in sizes.pictures:
        ms = engine.vision_ms(pictures)
        row = beside(f"{pictures} pictures", ms, roofline.vision_s(pictures))
        found.append(row | {"pictures_per_s": pictures / ms * 1e3})
    return found


def budget(engine: Engine, roofline: Roofline, sizes: Sizes) -> Rows:
    """What the daemon would find at its start."""
    return [
        {
            "case": f"budget of a step of {target_ms} ms",
            "tokens": measured_budget(engine.runner, target_ms / 1e3),
        }
        for target_ms in (25, 50, 100)
    ]


SWEEPS: dict[str, Sweep] = {
    "budget": budget,  # before a first step that counts
    "decode": decode,
    "prefill": prefill,
    "mixed": mixed,
    "vision": vision,
}
