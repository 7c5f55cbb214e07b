"""The golden conversations as an HTTP client would send them."""

from __future__ import annotations

from typing import Any

from tests import golden
from tests.e2e.daemon import image_part, text_part

MARKER = "<image>\n"


def parts(question: str, pictures: list[str]) -> list[dict[str, Any]]:
    """Text and pictures in their order; pictures without a place come first. Takes what it uses
    out of `pictures`."""
    texts = question.split(MARKER)
    content = []
    if len(texts) == 1:
        content = [image_part(file) for file in pictures]
        pictures.clear()
    for index, text in enumerate(texts):
        if index:
            content.append(image_part(pictures.pop(0)))
        if text:
            content.append(text_part(text))
    return content


def messages(case: dict[str, Any]) -> list[dict[str, Any]]:
    pictures = list(case["images"])
    turns = []
    for question, answer in case["history"] or []:
        # Pictures belong to the turn whose text has their markers.
        in_turn = [pictures.pop(0) for _ in range(question.count(MARKER))]
        turns.append({"role": "user", "content": parts(question, in_turn)})
        turns.append({"role": "assistant", "content": answer})
    return [*turns, {"role": "user", "content": parts(case["question"], pictures)}]


def request(case: dict[str, Any]) -> dict[str, Any]:
    """Body of the request that must give the authors' answer."""
    body: dict[str, Any] = {
        "messages": messages(case),
        "temperature": 0,
        "max_tokens": case["max_new_tokens"],
        "return_token_ids": True,
    }
    if any(count > 1 for count in case["effective_num_patches_list"]):
        pictures = [image_part(file) for file in case["images"]]
        text = text_part(case["question"].removeprefix(MARKER))
        body["messages"] = [{"role": "user", "content": [*pictures, text]}]
        body["mm_processor_kwargs"] = {"image_layout": "combined"}
    return body


def all_cases() -> list[dict[str, Any]]:
    """The eleven conversations and the three samples of the authors' batch."""
    cases = [golden.case(name) for name in golden.CONVERSATIONS]
    batch = golden.case("batch3")
    for index, sample in enumerate(batch["samples"]):
        cases.append(
            {
                "name": f"batch3[{index}]",
                "history": None,
                "images": [batch["images"][index]],
                "effective_num_patches_list": [1],
                "max_new_tokens": batch["max_new_tokens"],
                **sample,
            }
        )
    return cases
