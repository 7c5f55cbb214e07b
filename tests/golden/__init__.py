"""Access to the golden data of the authors' code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent / "tiny-a"
CHECKPOINT = ROOT / "checkpoint"
CASES = ROOT / "cases"
IMAGES = CASES / "images"

CONVERSATIONS = (
    "text_en",
    "text_zh_emoji",
    "text_history",
    "text_eos",
    "image_single",
    "image_multiround",
    "two_combined",
    "two_separate",
    "two_separate_round2",
    "video8",
    "video8_round2",
)


def video_sampling() -> list[dict[str, Any]]:
    """Clips, and which of their frames the model card's code takes."""
    value: list[dict[str, Any]] = json.loads((CASES / "video_sampling.json").read_text())
    return value


def case(name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((CASES / f"{name}.json").read_text(encoding="utf-8"))
    return value
