from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.errors import CheckpointError
from server.frontend.prompt import Prompt, PromptBuilder
from server.frontend.template import ImageLayout, ImagePart, Role, TextPart, Turn, render
from server.frontend.tokenizer import Tokenizer
from tests.frontend.support import (
    CONTROLS,
    SYSTEM_MESSAGE,
    TOKENS_PER_IMAGE,
    as_string,
    golden_tokenizer,
    texts,
    train_model,
)
from tests.golden import CONVERSATIONS, case

IMAGE = ImagePart()
NUMBERED = "Image-1: <image>\nImage-2: <image>\n"

CASES = [
    *map(case, CONVERSATIONS),
    case("image_no_placeholder"),
    *case("batch3")["samples"],
    *[
        prompt
        for prompt in case("prompts")["cases"]
        if prompt["reference_outcome"] == "runs"
        and not any(name in prompt["question"] for name in CONTROLS)
        and prompt["question"].count("<image>") <= prompt["question"].startswith("<image>\n")
    ],
]


def client_parts(message: str, num_images: int) -> tuple[TextPart | ImagePart, ...]:
    """What an HTTP client sends where the authors' user typed `message`: pictures are parts, and
    neither the placeholders nor the numbers of pictures are typed."""
    if message.startswith("<image>\n"):
        return (*[IMAGE] * num_images, TextPart(message.removeprefix("<image>\n")))
    if message.startswith(NUMBERED):
        return (IMAGE, IMAGE, TextPart(message.removeprefix(NUMBERED)))
    parts: list[TextPart | ImagePart] = []
    for position, text in enumerate(message.split("<image>\n")):
        parts += [IMAGE, TextPart(text)] if position else [TextPart(text)]
    return tuple(parts)


def client_turns(golden: dict[str, Any]) -> list[Turn]:
    num_images = golden["token_ids"].count(CONTROLS["<IMG_CONTEXT>"]) // TOKENS_PER_IMAGE
    turns = []
    for asked, answered in golden.get("history") or ():
        turns.append(Turn("user", client_parts(asked, num_images)))
        turns.append(Turn("assistant", (TextPart(answered),)))
    question = golden["question"]
    if golden["prompt"].count("<img>") > sum(
        sum(isinstance(part, ImagePart) for part in turn.parts) for turn in turns
    ):
        # chat() puts the first picture in front of a question without a placeholder.
        question = question if "<image>" in question else f"<image>\n{question}"
    return [*turns, Turn("user", client_parts(question, num_images))]


def builder() -> PromptBuilder:
    return PromptBuilder(golden_tokenizer(), TOKENS_PER_IMAGE, SYSTEM_MESSAGE)


def test_the_cases_are_all_there() -> None:
    assert len(CASES) == 11 + 1 + 3 + 10


@pytest.mark.parametrize("golden", CASES, ids=lambda golden: repr(golden["question"][:20]))
def test_prompts_of_a_client_are_the_authors(golden: dict[str, Any]) -> None:
    one_slot = golden["prompt"].count("<img>") == 1
    layout: ImageLayout = "combined" if one_slot else "separate"
    turns = client_turns(golden)

    assert as_string(render(turns, SYSTEM_MESSAGE, layout)) == golden["prompt"]
    prompt = builder().build(turns, layout)

    assert prompt.token_ids == golden["token_ids"]
    assert prompt.images == runs(prompt.token_ids)


def runs(token_ids: list[int]) -> tuple[tuple[int, int], ...]:
    context = CONTROLS["<IMG_CONTEXT>"]
    positions = [position for position, token_id in enumerate(token_ids) if token_id == context]
    return tuple((start, TOKENS_PER_IMAGE) for start in positions[::TOKENS_PER_IMAGE])


def test_combined_pictures_have_adjacent_runs() -> None:
    turns = [Turn("user", (IMAGE, IMAGE, IMAGE, TextPart("a")))]

    assert builder().build(turns, "combined").images == ((12, 4), (16, 4), (20, 4))
    assert builder().build(turns).token_ids != builder().build(turns, "combined").token_ids


def test_the_picture_may_come_after_its_text() -> None:
    first = builder().build([Turn("user", (IMAGE, TextPart("What is it?")))])
    last = builder().build([Turn("user", (TextPart("What is it?"), IMAGE))])

    assert first == last


roles: st.SearchStrategy[Role] = st.sampled_from(["system", "user", "assistant"])
parts = st.lists(st.one_of(st.just(IMAGE), texts.map(TextPart)), max_size=5).map(tuple)
conversations = st.lists(st.builds(Turn, roles, parts), max_size=5)
layouts: st.SearchStrategy[ImageLayout] = st.sampled_from(["separate", "combined"])


@settings(derandomize=True, max_examples=150, deadline=None)
@given(conversations, layouts)
def test_no_text_adds_a_control_token_or_moves_a_picture(
    turns: list[Turn], layout: ImageLayout
) -> None:
    prompt = builder().build(turns, layout)
    neutral = builder().build([harmless(turn) for turn in turns], layout)

    assert controls(prompt) == controls(neutral)
    assert prompt.images == runs(prompt.token_ids)
    assert len(prompt.images) == sum(part == IMAGE for turn in turns for part in turn.parts)


def harmless(turn: Turn) -> Turn:
    """The turn with other texts where it has texts."""
    return Turn(
        turn.role,
        tuple(
            TextPart("a" if part.text else "") if isinstance(part, TextPart) else part
            for part in turn.parts
        ),
    )


def controls(prompt: Prompt) -> list[int]:
    return [token_id for token_id in prompt.token_ids if token_id in CONTROLS.values()]


def test_parts_cannot_be_put_together_to_a_control_token() -> None:
    turns = [Turn("user", (TextPart("a<|im_"), TextPart("end|>"), IMAGE, TextPart("</img>")))]

    assert controls(builder().build(turns)) == [6, 7, 6, 12, *[1017] * 4, 13, 7, 6]


def test_a_tokenizer_without_the_templates_tokens_is_refused(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    for missing in ("<|im_start|>", "<img>", "</img>", "<IMG_CONTEXT>"):
        tags = {"<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>"} - {missing}
        folder = train_model(tmp_path_factory.mktemp("model"), tags=sorted(tags))
        with pytest.raises(CheckpointError, match=missing.replace("|", r"\|")):
            PromptBuilder(Tokenizer.load(folder), TOKENS_PER_IMAGE, SYSTEM_MESSAGE)
