"""Whatever is said and shown, the prompt has the control tokens of its turns, one run for each
picture, and nothing that a text could pass for."""

from __future__ import annotations

from atheris import FuzzedDataProvider

from server.errors import ApiError
from server.frontend.prompt import PromptBuilder
from server.frontend.template import Ending, ImagePart, Part, TextPart, Turn, VideoPart
from tests.frontend.support import (
    CONTROLS,
    SYSTEM_MESSAGE,
    TOKENS_PER_IMAGE,
    golden_tokenizer,
)
from tests.fuzz.target import Target

NAMES = sorted(CONTROLS)
CONTEXT = CONTROLS["<IMG_CONTEXT>"]
BUILDER = PromptBuilder(golden_tokenizer(), TOKENS_PER_IMAGE, SYSTEM_MESSAGE)


def try_one(data: bytes) -> None:
    source = FuzzedDataProvider(data)
    turns = [_turn(source) for _ in range(source.ConsumeIntInRange(1, 4))]
    layout = source.PickValueInList(["separate", "combined"])
    ending = source.PickValueInList(list(Ending))
    try:
        prompt = BUILDER.build(turns, layout, system_suffix=_text(source), ending=ending)
    except ApiError as failure:
        assert failure.status == 400
        return
    ids, parts = prompt.token_ids, [part for turn in turns for part in turn.parts]
    pictures = sum(_pictures(part) for part in parts)
    assert len(prompt.images) == pictures
    for offset, length in prompt.images:
        assert ids[offset : offset + length] == [CONTEXT] * TOKENS_PER_IMAGE
    assert ids.count(CONTEXT) == pictures * TOKENS_PER_IMAGE
    assert ids.count(CONTROLS["<|im_start|>"]) <= len(turns) + 2
    assert ids.count(CONTROLS["<img>"]) == ids.count(CONTROLS["</img>"]) <= pictures


def _pictures(part: Part) -> int:
    if isinstance(part, VideoPart):
        return part.frames
    return int(isinstance(part, ImagePart))


def _turn(source: FuzzedDataProvider) -> Turn:
    role = source.PickValueInList(["system", "user", "assistant"])
    return Turn(role, tuple(_part(source) for _ in range(source.ConsumeIntInRange(0, 4))))


def _part(source: FuzzedDataProvider) -> Part:
    kind = source.ConsumeIntInRange(0, 5)
    if kind == 0:
        return ImagePart()
    if kind == 1:
        return VideoPart(source.ConsumeIntInRange(1, 3))
    return TextPart(_text(source))


def _text(source: FuzzedDataProvider) -> str:
    """Often close to a control token."""
    name: str = source.PickValueInList(NAMES)
    begin, end = source.ConsumeIntInRange(0, 3), source.ConsumeIntInRange(0, 20)
    text: str = source.ConsumeUnicode(source.ConsumeIntInRange(0, 12))
    close: str = source.PickValueInList(["", *NAMES, "<image>", "▁", "\n"])
    return text + name[begin:end] + close


TARGET = Target("prompts", try_one, [bytes(range(256)), bytes(200)])
