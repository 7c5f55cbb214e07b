from __future__ import annotations

from typing import Any

import pytest

from server.errors import ApiError
from server.frontend.prompt import Prompt
from server.frontend.reference_prompt import ReferenceChat, build_reference_prompt
from tests.frontend.support import CONTROLS, SYSTEM_MESSAGE, TOKENS_PER_IMAGE, golden_tokenizer
from tests.golden import CONVERSATIONS, case

PROMPTS = case("prompts")["cases"]
RUNNING = [
    *[prompt for prompt in PROMPTS if prompt["reference_outcome"] == "runs"],
    *map(case, (*CONVERSATIONS, "image_no_placeholder")),
    *[sample | {"images": ["one"], "history": None} for sample in case("batch3")["samples"]],
]
FAILING = [prompt for prompt in PROMPTS if prompt["reference_outcome"] != "runs"]


def chat_of(golden: dict[str, Any]) -> ReferenceChat:
    embeddings = golden.get("image_embeddings", 0) // TOKENS_PER_IMAGE
    return ReferenceChat(
        golden["question"],
        golden["history"],
        num_images=len(golden.get("images", ())) or embeddings,
        num_patches_list=golden.get("num_patches_list"),
    )


def build(chat: ReferenceChat) -> Prompt:
    return build_reference_prompt(golden_tokenizer(), chat, SYSTEM_MESSAGE, TOKENS_PER_IMAGE)


def test_the_cases_are_all_there() -> None:
    assert len(RUNNING) == 17 + 11 + 1 + 3
    assert len(FAILING) == 3


@pytest.mark.parametrize("golden", RUNNING, ids=lambda golden: repr(golden["question"][:20]))
def test_prompts_are_the_authors(golden: dict[str, Any]) -> None:
    chat = chat_of(golden)
    prompt = build(chat)

    assert chat.text(SYSTEM_MESSAGE, TOKENS_PER_IMAGE) == golden["prompt"]
    assert prompt.token_ids == golden["token_ids"]
    assert len(prompt.images) == chat.num_images
    for offset, length in prompt.images:
        assert set(prompt.token_ids[offset : offset + length]) == {CONTROLS["<IMG_CONTEXT>"]}


@pytest.mark.parametrize("golden", FAILING, ids=lambda golden: repr(golden["question"][:20]))
def test_what_fails_in_the_authors_code_is_an_error(golden: dict[str, Any]) -> None:
    chat = chat_of(golden)
    assert chat.text(SYSTEM_MESSAGE, TOKENS_PER_IMAGE) == golden["prompt"]

    with pytest.raises(ApiError, match="do not fit") as caught:
        build(chat)

    assert caught.value.status == 400


@pytest.mark.parametrize(
    "chat",
    [
        ReferenceChat("<image>", num_images=1, num_patches_list=[2]),
        ReferenceChat("<image><image>", num_images=2, num_patches_list=[1]),
        ReferenceChat("<IMG_CONTEXT> <image>", num_images=1),
        ReferenceChat("<IMG_CONTEXT><IMG_CONTEXT> <IMG_CONTEXT><IMG_CONTEXT>", [], 1, [1]),
    ],
)
def test_typed_placeholders_that_do_not_fit_are_an_error(chat: ReferenceChat) -> None:
    with pytest.raises(ApiError, match="do not fit"):
        build(chat)
