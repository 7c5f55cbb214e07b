"""Prompts exactly as the authors' `chat()` builds them, for comparison with their code.

The prompt is rendered as one string, in which control strings act as control tokens and every
literal `<image>` is a slot, whoever wrote it. Only trusted text may go through here; requests go
through `PromptBuilder`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from server.errors import invalid
from server.frontend.prompt import IMAGE_CONTEXT, IMAGE_END, IMAGE_START, Prompt
from server.frontend.tokenizer import Tokenizer

SLOT = "<image>"


@dataclass(frozen=True, slots=True)
class ReferenceChat:
    """Arguments of the authors' `chat()`, under their names; pictures are only counted."""

    question: str
    history: Sequence[tuple[str, str]] | None = None
    num_images: int = 0
    num_patches_list: Sequence[int] | None = None

    def text(self, system_message: str, tokens_per_image: int) -> str:
        """The prompt with its slots filled, in order, as far as there are pictures."""
        question = self.question
        if self.history is None and self.num_images and SLOT not in question:
            question = f"{SLOT}\n{question}"
        text = f"<|im_start|>system\n{system_message}<|im_end|>"
        for asked, answered in self.history or ():
            text += _message("user", asked) + _message("assistant", answered)
        text += _message("user", question) + _message("assistant", "")
        for count in self.patches():
            run = IMAGE_CONTEXT * (tokens_per_image * count)
            text = text.replace(SLOT, f"{IMAGE_START}{run}{IMAGE_END}", 1)
        return text

    def patches(self) -> Sequence[int]:
        """Pictures per slot; without a list all of them share one."""
        if self.num_patches_list is not None:
            return self.num_patches_list
        return [self.num_images] if self.num_images else []


def build_reference_prompt(
    tokenizer: Tokenizer, chat: ReferenceChat, system_message: str, tokens_per_image: int
) -> Prompt:
    """Ids of the prompt, and the run of each picture.

    Raises:
        ApiError: the slots do not fit the pictures; the authors' code fails here too.
    """
    ids = tokenizer.encode_trusted(chat.text(system_message, tokens_per_image))
    if not chat.num_images:
        return Prompt(ids, ())
    context = tokenizer.control_id(IMAGE_CONTEXT)
    positions = [position for position, token_id in enumerate(ids) if token_id == context]
    starts = positions[::tokens_per_image]
    runs = [position for start in starts for position in range(start, start + tokens_per_image)]
    if positions != runs or len(starts) != chat.num_images or sum(chat.patches()) != len(starts):
        raise invalid("The image slots of the prompt do not fit its images.", param="messages")
    return Prompt(ids, tuple((start, tokens_per_image) for start in starts))


def _message(role: str, content: str) -> str:
    """A message; an empty one is its header alone, which also opens the answer."""
    return f"<|im_start|>{role}\n{content}" + ("<|im_end|>" if content else "")
