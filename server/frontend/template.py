"""The Hermes-2 chat template, rendered as pieces instead of a string.

A conversation becomes control tokens, texts and picture slots. Only this module writes control
tokens; whatever a client sent stays text, so no message can end its turn, open another one or claim
a picture that was not sent. The rendered string is the authors', byte by byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import groupby, zip_longest
from typing import Literal

Role = Literal["system", "user", "assistant"]
ImageLayout = Literal["separate", "combined"]


class Ending(Enum):
    """What stands at the end of a prompt."""

    ANSWER = "answer"
    """The header of the answer, which the model then writes."""
    COMPLETE = "complete"
    """The last message, whole."""
    OPEN = "open"
    """The last message without its end: the model goes on with it."""


@dataclass(frozen=True, slots=True)
class TextPart:
    text: str


@dataclass(frozen=True, slots=True)
class ImagePart:
    """A picture stands here; pictures are taken in the order of the conversation."""


@dataclass(frozen=True, slots=True)
class VideoPart:
    """So many frames of a video stand here; they are taken like pictures, in order."""

    frames: int


Part = TextPart | ImagePart | VideoPart


@dataclass(frozen=True, slots=True)
class Turn:
    """One message: its parts in the order in which the client sent them."""

    role: Role
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Control:
    """A control token, by name."""

    name: str


@dataclass(frozen=True, slots=True)
class Pictures:
    """One placeholder: `<img>`, the embeddings of `count` pictures, `</img>`."""

    count: int


Piece = Control | TextPart | Pictures

MESSAGE_START = Control("<|im_start|>")
MESSAGE_END = Control("<|im_end|>")


def render(
    turns: Iterable[Turn],
    system_message: str,
    layout: ImageLayout,
    *,
    system_suffix: str = "",
    ending: Ending = Ending.ANSWER,
) -> list[Piece]:
    """The prompt up to the point where the model answers; no two texts stand side by side.

    System turns at the start are one message, joined by newlines, and replace `system_message`; a
    later one is a message of its own in its place. As in the authors' template there is no newline
    behind `<|im_end|>`, and an empty message is its header alone.

    Args:
        system_suffix: stands in the first system message, on a line of its own behind its text.
    """
    pieces: list[Piece] = []
    pictures_before = 0
    for turn in _with_system(list(turns), system_message, system_suffix):
        body = _render_parts(turn.parts, layout, pictures_before)
        pictures_before += sum(isinstance(part, ImagePart) for part in turn.parts)
        pieces += [MESSAGE_START, TextPart(f"{turn.role}\n"), *body]
        if body or turn.role == "system":
            pieces.append(MESSAGE_END)
    if ending is Ending.ANSWER:
        pieces += [MESSAGE_START, TextPart("assistant\n")]
    elif ending is Ending.OPEN and pieces[-1] is MESSAGE_END:
        pieces.pop()
    return list(_joined(pieces))


def _with_system(turns: list[Turn], system_message: str, suffix: str) -> list[Turn]:
    """The conversation with exactly one system turn at its start."""
    first = next((i for i, turn in enumerate(turns) if turn.role != "system"), len(turns))
    parts = tuple(part for turn in turns[:first] for part in turn.parts)
    if first == 0:
        parts = (TextPart(system_message),)
    return [Turn("system", (*parts, TextPart(suffix))), *turns[first:]]


def _render_parts(parts: Sequence[Part], layout: ImageLayout, pictures_before: int) -> list[Piece]:
    """Places the pictures of one message as the authors do."""
    pieces = _arrange(_blocks(parts), layout, pictures_before)
    lines: list[Piece] = []
    for piece, following in zip_longest(pieces, pieces[1:]):
        lines.append(piece)
        starts_line = isinstance(following, TextPart) and following.text.startswith("\n")
        if isinstance(piece, Pictures) and not starts_line:
            lines.append(TextPart("\n"))
    return lines


def _blocks(parts: Sequence[Part]) -> list[Part]:
    """The parts without empty texts; texts side by side become one, each from a new line."""
    blocks: list[Part] = []
    for part in parts:
        if not isinstance(part, TextPart):
            blocks.append(part)
        elif part.text:
            if blocks and isinstance(blocks[-1], TextPart):
                blocks[-1] = TextPart(f"{blocks[-1].text}\n{part.text}")
            else:
                blocks.append(part)
    return blocks


def _arrange(blocks: list[Part], layout: ImageLayout, pictures_before: int) -> list[Piece]:
    """Pictures and text in their final order: as sent where text stands between pictures, else in
    the authors' form with the pictures in front."""
    texts = [block for block in blocks if isinstance(block, TextPart)]
    text_inside = any(isinstance(block, TextPart) for block in blocks[1:-1])
    if text_inside or len(texts) > 1:
        return list(_in_place(blocks))
    shown = [block for block in blocks if not isinstance(block, TextPart)]
    return [*_in_front(shown, layout, pictures_before), *texts]


def _in_place(blocks: Sequence[Part]) -> Iterator[Piece]:
    for before, block in zip([None, *blocks], blocks, strict=False):
        if isinstance(block, TextPart):
            yield block
        elif isinstance(block, ImagePart):
            yield Pictures(1)
        else:
            if isinstance(before, TextPart) and not before.text.endswith("\n"):
                yield TextPart("\n")
            yield from _frames(block)


def _in_front(
    shown: Sequence[ImagePart | VideoPart], layout: ImageLayout, pictures_before: int
) -> Iterator[Piece]:
    """Pictures without text among them. Several are combined, or labelled: the authors fill
    placeholders in order over the whole conversation, so a picture's number is its place there;
    numbers go on from message to message and none is given twice."""
    pictures = shown.count(ImagePart())
    number = pictures_before
    for part, equal in groupby(shown):
        count = len(list(equal))
        if isinstance(part, VideoPart):
            for _ in range(count):
                yield from _frames(part)
        elif pictures == 1 or layout == "combined":
            yield Pictures(count)
        else:
            for _ in range(count):
                number += 1
                yield TextPart(f"Image-{number}: ")
                yield Pictures(1)


def _frames(video: VideoPart) -> Iterator[Piece]:
    """Each frame has its line, counted anew in every video, as in the model card's example."""
    for number in range(1, video.frames + 1):
        yield TextPart(f"Frame{number}: ")
        yield Pictures(1)


def _joined(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Joins neighbouring texts: a tokenizer gives other ids to the parts than to the whole."""
    text = ""
    for piece in pieces:
        if isinstance(piece, TextPart):
            text += piece.text
            continue
        if text:
            yield TextPart(text)
            text = ""
        yield piece
    if text:
        yield TextPart(text)
