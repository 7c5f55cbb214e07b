"""A conversation as the model reads it: token ids, and where in them each picture stands.

The only ids that mean something to the model beyond text come from the template's own pieces; the
`<IMG_CONTEXT>` runs are exactly the pictures that were sent, whatever the texts say.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from server.frontend.template import (
    MESSAGE_END,
    MESSAGE_START,
    Control,
    Ending,
    ImageLayout,
    Pictures,
    Turn,
    render,
)
from server.frontend.tokenizer import Tokenizer

IMAGE_START = "<img>"
IMAGE_CONTEXT = "<IMG_CONTEXT>"
IMAGE_END = "</img>"


@dataclass(frozen=True, slots=True)
class Prompt:
    token_ids: list[int]
    images: tuple[tuple[int, int], ...]
    """(offset, length) of each picture's run of `<IMG_CONTEXT>`, in the order of the pictures."""


class PromptBuilder:
    """Builds prompts of one checkpoint; safe to use from several threads."""

    def __init__(self, tokenizer: Tokenizer, tokens_per_image: int, system_message: str) -> None:
        """`system_message` is used where a conversation brings none.

        Raises:
            CheckpointError: the tokenizer lacks a control token of the template.
        """
        self._tokenizer = tokenizer
        self._system_message = system_message
        self._controls = {c: tokenizer.control_id(c.name) for c in (MESSAGE_START, MESSAGE_END)}
        self._image_start = tokenizer.control_id(IMAGE_START)
        self._image_end = tokenizer.control_id(IMAGE_END)
        self._picture = [tokenizer.control_id(IMAGE_CONTEXT)] * tokens_per_image

    def build(
        self,
        turns: Iterable[Turn],
        layout: ImageLayout = "separate",
        *,
        system_suffix: str = "",
        ending: Ending = Ending.ANSWER,
    ) -> Prompt:
        """The prompt of a conversation, up to where the model answers; see `template.render`.

        Raises:
            ApiError: a text holds a lone surrogate.
        """
        ids: list[int] = []
        images: list[tuple[int, int]] = []
        pieces = render(
            turns, self._system_message, layout, system_suffix=system_suffix, ending=ending
        )
        for piece in pieces:
            if isinstance(piece, Control):
                ids.append(self._controls[piece])
            elif isinstance(piece, Pictures):
                ids.append(self._image_start)
                for _ in range(piece.count):
                    images.append((len(ids), len(self._picture)))
                    ids += self._picture
                ids.append(self._image_end)
            else:
                ids += self._tokenizer.encode_text(piece.text)
        return Prompt(ids, tuple(images))
