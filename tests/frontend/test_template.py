from __future__ import annotations

import pytest

from server.frontend.template import (
    Ending,
    ImageLayout,
    ImagePart,
    Part,
    Role,
    TextPart,
    Turn,
    VideoPart,
    render,
)
from tests.frontend.support import as_string

IMAGE = ImagePart()
SLOT = "<img><IMG_CONTEXT><IMG_CONTEXT><IMG_CONTEXT><IMG_CONTEXT></img>"
BOTH = SLOT.replace("</img>", "") + SLOT.replace("<img>", "")
VIDEO = VideoPart(2)
FRAMES = f"Frame1: {SLOT}\nFrame2: {SLOT}\n"
HEADER = "<|im_start|>system\nS<|im_end|>"


def turn(role: Role, *parts: str | Part) -> Turn:
    return Turn(role, tuple(TextPart(part) if isinstance(part, str) else part for part in parts))


def rendered(*turns: Turn, layout: ImageLayout = "separate") -> str:
    return as_string(render(turns, "S", layout))


def body(*parts: str | Part, layout: ImageLayout = "separate") -> str:
    """What becomes of the content of a user's message."""
    text = rendered(turn("user", *parts), layout=layout)
    before, after = f"{HEADER}<|im_start|>user\n", "<|im_end|><|im_start|>assistant\n"
    assert text.startswith(before) and text.endswith(after)
    return text.removeprefix(before).removesuffix(after)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (("a",), "a"),
        (("a", "b"), "a\nb"),
        (("a", "", "b", ""), "a\nb"),
        ((IMAGE,), f"{SLOT}\n"),
        ((IMAGE, "a"), f"{SLOT}\na"),
        (("a", IMAGE), f"{SLOT}\na"),
        ((IMAGE, "\na"), f"{SLOT}\na"),
        ((IMAGE, "\n\na"), f"{SLOT}\n\na"),
        ((IMAGE, "a", "b"), f"{SLOT}\na\nb"),
        (("", IMAGE, "a"), f"{SLOT}\na"),
        ((IMAGE, IMAGE), f"Image-1: {SLOT}\nImage-2: {SLOT}\n"),
        ((IMAGE, IMAGE, "a"), f"Image-1: {SLOT}\nImage-2: {SLOT}\na"),
        (("a", IMAGE, IMAGE), f"Image-1: {SLOT}\nImage-2: {SLOT}\na"),
        ((IMAGE, IMAGE, "\na"), f"Image-1: {SLOT}\nImage-2: {SLOT}\na"),
        ((IMAGE, "a", IMAGE), f"{SLOT}\na{SLOT}\n"),
        (("a", IMAGE, "b"), f"a{SLOT}\nb"),
        (("a ", IMAGE, IMAGE, "\nb", IMAGE), f"a {SLOT}\n{SLOT}\nb{SLOT}\n"),
        (("Frame1: ", IMAGE, "Frame2: ", IMAGE, "a"), f"Frame1: {SLOT}\nFrame2: {SLOT}\na"),
    ],
)
def test_pictures_stand_where_the_authors_put_them(
    parts: tuple[str | ImagePart, ...], expected: str
) -> None:
    assert body(*parts) == expected


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((IMAGE, "a"), f"{SLOT}\na"),
        ((IMAGE, IMAGE, "a"), f"{BOTH}\na"),
        (("a", IMAGE, IMAGE), f"{BOTH}\na"),
        ((IMAGE, IMAGE, "\na"), f"{BOTH}\na"),
        ((IMAGE, IMAGE), f"{BOTH}\n"),
        ((IMAGE, "a", IMAGE), f"{SLOT}\na{SLOT}\n"),
    ],
)
def test_combined_pictures_share_one_slot(
    parts: tuple[str | ImagePart, ...], expected: str
) -> None:
    assert body(*parts, layout="combined") == expected


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((VIDEO, "a"), f"{FRAMES}a"),
        (("a", VIDEO), f"{FRAMES}a"),
        ((VIDEO,), FRAMES),
        ((VIDEO, VIDEO, "a"), f"{FRAMES}{FRAMES}a"),
        (("a", VIDEO, "b"), f"a\n{FRAMES}b"),
        (("a\n", VIDEO, "b", VIDEO), f"a\n{FRAMES}b\n{FRAMES}"),
        ((VIDEO, IMAGE, "a"), f"{FRAMES}{SLOT}\na"),
        ((IMAGE, VIDEO, IMAGE, "a"), f"Image-1: {SLOT}\n{FRAMES}Image-2: {SLOT}\na"),
    ],
)
def test_each_frame_of_a_video_has_its_line(parts: tuple[str | Part, ...], expected: str) -> None:
    assert body(*parts) == expected


def test_frames_are_never_combined_and_do_not_count_as_pictures() -> None:
    assert body(IMAGE, IMAGE, VIDEO, "a", layout="combined") == f"{BOTH}\n{FRAMES}a"
    text = rendered(turn("user", VIDEO, "a"), turn("user", IMAGE, IMAGE, VideoPart(1)))
    assert f"Image-1: {SLOT}\nImage-2: {SLOT}\nFrame1: {SLOT}\n<" in text


def test_numbers_go_on_over_the_conversation() -> None:
    text = rendered(
        turn("user", IMAGE, "a"),
        turn("assistant", "b"),
        turn("user", IMAGE, IMAGE, "c"),
        turn("user", IMAGE, IMAGE),
    )

    assert f"user\n{SLOT}\na<" in text
    assert f"user\nImage-2: {SLOT}\nImage-3: {SLOT}\nc<" in text
    assert f"user\nImage-4: {SLOT}\nImage-5: {SLOT}\n<" in text


def test_messages_end_without_a_newline_and_empty_ones_are_headers() -> None:
    text = rendered(turn("user", "a"), turn("assistant", ""), turn("user"), turn("assistant", "b"))

    assert text == (
        f"{HEADER}<|im_start|>user\na<|im_end|><|im_start|>assistant\n<|im_start|>user\n"
        "<|im_start|>assistant\nb<|im_end|><|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ((), "S"),
        ((turn("system", "T"),), "T"),
        ((turn("system", ""),), ""),
        ((turn("system", "T"), turn("system", "U", "V")), "T\nU\nV"),
    ],
)
def test_leading_system_messages_are_one_and_replace_the_checkpoints(
    turns: tuple[Turn, ...], expected: str
) -> None:
    text = rendered(*turns, turn("user", "a"))

    assert text == (
        f"<|im_start|>system\n{expected}<|im_end|><|im_start|>user\na<|im_end|>"
        "<|im_start|>assistant\n"
    )


def test_a_later_system_message_stays_in_its_place() -> None:
    text = rendered(turn("user", "a"), turn("system", "T"), turn("user", "b"))

    assert text == (
        f"{HEADER}<|im_start|>user\na<|im_end|><|im_start|>system\nT<|im_end|>"
        "<|im_start|>user\nb<|im_end|><|im_start|>assistant\n"
    )


def test_texts_that_meet_are_one_piece() -> None:
    pieces = render([turn("user", "a", IMAGE, "b")], "S", "separate")

    texts = [piece.text for piece in pieces if isinstance(piece, TextPart)]
    assert texts == ["system\nS", "user\na", "\nb", "assistant\n"]


@pytest.mark.parametrize(
    ("ending", "expected"),
    [
        (Ending.ANSWER, "<|im_start|>assistant\nIt is<|im_end|><|im_start|>assistant\n"),
        (Ending.COMPLETE, "<|im_start|>assistant\nIt is<|im_end|>"),
        (Ending.OPEN, "<|im_start|>assistant\nIt is"),
    ],
)
def test_ends_of_a_prompt(ending: Ending, expected: str) -> None:
    turns = [turn("user", "a"), turn("assistant", "It is")]
    text = as_string(render(turns, "S", "separate", ending=ending))
    assert text == f"{HEADER}<|im_start|>user\na<|im_end|>{expected}"


def test_an_open_end_of_an_empty_message_is_its_header() -> None:
    text = as_string(render([turn("assistant")], "S", "separate", ending=Ending.OPEN))
    assert text == f"{HEADER}<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("turns", "expected"), [([], "S\nX"), ([turn("system", "a")], "a\nX"), ([turn("system")], "X")]
)
def test_the_suffix_stands_at_the_end_of_the_system_message(
    turns: list[Turn], expected: str
) -> None:
    pieces = render([*turns, turn("user", "a")], "S", "separate", system_suffix="X")
    assert as_string(pieces).startswith(f"<|im_start|>system\n{expected}<|im_end|>")
