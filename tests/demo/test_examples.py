from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from server.demo.examples import IGNORED, Batch, Batches, Recipe
from server.demo.mentions import UNKNOWN
from server.demo.pictures import CHARACTERS, LONGEST_LABEL, PATCH_CLASSES
from server.demo.questions import CATEGORIES
from server.demo.words import COLOURS, SHAPES
from server.frontend.prompt import IMAGE_CONTEXT, PromptBuilder
from server.frontend.template import ImagePart, TextPart, Turn
from server.frontend.tokenizer import Tokenizer
from server.model.spec import ModelSpec

Small = tuple[ModelSpec, Tokenizer]
RECIPE = Recipe(size_px=112, grid=2, pictures=6, tokens=160)


def batches(small: Small, recipe: Recipe = RECIPE, seed: str = "test") -> Batches:
    spec, tokenizer = small
    return Batches(recipe, spec, tokenizer, seed)


def branch(batch: Batch, row: int, number: int) -> tuple[list[int], list[int]]:
    """Tokens and targets of one branch behind the prefix."""
    mine = (batch.branches[row] == 0) | (batch.branches[row] == number)
    return batch.token_ids[row][mine].tolist(), batch.targets[row][mine].tolist()


def text(tokenizer: Tokenizer, ids: list[int]) -> str:
    return b"".join(map(tokenizer.token_bytes, ids)).decode()


def test_a_number_gives_the_same_batch_again(small: Small) -> None:
    first, second, other = batches(small)[3], batches(small)[3], batches(small)[4]
    assert torch.equal(first.pixels, second.pixels)
    assert torch.equal(first.token_ids, second.token_ids)
    assert not torch.equal(first.pixels, other.pixels)


def test_seeds_give_different_batches(small: Small) -> None:
    first, second = batches(small, seed="a")[0], batches(small, seed="b")[0]
    assert not torch.equal(first.pixels, second.pixels)


def test_a_branch_is_the_prompt_that_the_server_builds(small: Small) -> None:
    spec, tokenizer = small
    prompts = PromptBuilder(tokenizer, spec.tokens_per_image, spec.system_message)
    end = tokenizer.control_id("<|im_end|>")
    checked = 0
    for index in range(4):
        batch = batches(small)[index]
        for row, categories in enumerate(batch.categories):
            pictures = batch.token_ids[row].tolist().count(tokenizer.control_id(IMAGE_CONTEXT))
            pictures //= spec.tokens_per_image
            for number, category in enumerate(categories, start=1):
                ids, targets = branch(batch, row, number)
                if category == "second turn":
                    continue
                answer = [target for target in targets if target != IGNORED]
                start = len(targets) - len(answer)
                assert targets[start:] == answer
                assert answer[-1] == end
                question = (
                    text(tokenizer, ids)
                    .rpartition("user\n\n")[2]
                    .removesuffix(text(tokenizer, answer))
                )
                turn = TextPart(question.removesuffix("assistant\n"))
                if pictures == 1:
                    built = prompts.build([Turn("user", (ImagePart(), turn))])
                    assert built.token_ids + answer[:-1] == ids
                    checked += 1
    assert checked > 40


def test_nothing_is_asked_twice_about_a_picture(small: Small) -> None:
    weights = {category: float(category == "reading") for category in CATEGORIES}
    recipe = replace(RECIPE, tokens=600, kinds=("labels",), pairs=0, weights=weights)
    # Of two labels each one can be read, of one alone also "the text".
    assert {len(asked) for asked in batches(small, recipe)[0].categories} <= {1, 2}


def test_positions_go_on_from_the_prefix_in_every_branch(small: Small) -> None:
    batch = batches(small)[0]
    for row, categories in enumerate(batch.categories):
        for number in range(1, len(categories) + 1):
            mine = (batch.branches[row] == 0) | (batch.branches[row] == number)
            positions = batch.positions[row][mine].tolist()
            assert positions == list(range(len(positions)))


def test_patches_are_labelled_with_what_they_show(small: Small) -> None:
    batch = batches(small)[1]
    side = RECIPE.size_px // 14
    assert batch.patches.shape == (RECIPE.pictures, side * side, len(PATCH_CLASSES))
    assert (batch.patches < torch.tensor(PATCH_CLASSES)).all()
    shapes, colours, characters, parts = batch.patches.unbind(-1)
    assert ((shapes > 0) & (characters > 0)).sum() == 0
    assert torch.equal(colours > 0, (shapes > 0) | (characters > 0))
    assert shapes.max() <= len(SHAPES)
    assert characters.max() <= len(CHARACTERS)
    middles = parts == LONGEST_LABEL + 1
    assert ((parts > 0) & ~middles == (characters > 0)).all()
    assert (shapes[middles] > 0).all()


def test_what_words_name_stands_at_their_last_token(small: Small) -> None:
    _, tokenizer = small
    ends = set()
    for index in range(4):
        batch = batches(small)[index]
        for row, token in (batch.mentions != UNKNOWN).any(-1).nonzero().tolist():
            assert batch.targets[row, token] == IGNORED  # questions are not learned
            ids = batch.token_ids[row, max(0, token - 8) : token + 1].tolist()
            said = b"".join(map(tokenizer.token_bytes, ids))
            ends |= {name for name in (*SHAPES, *COLOURS) if said.endswith(name.encode())}
    assert len(ends) > 6


def test_vision_alone_has_no_tokens(small: Small) -> None:
    recipe = Recipe(size_px=112, grid=2, pictures=3, tokens=0)
    batch = batches(small, recipe)[0]
    assert batch.pixels.shape == (3, 112, 112, 3)
    assert batch.token_ids.numel() == 0


@pytest.mark.parametrize("tokens", [60, 100])
def test_examples_are_filled_with_conversations(small: Small, tokens: int) -> None:
    recipe = Recipe(size_px=112, grid=2, pictures=20, tokens=tokens, kinds=("both",))
    batch = batches(small, recipe)[2]
    lengths = (batch.branches >= 0).sum(1).tolist()
    # Without a picture there is only one thing to ask.
    asked = [length for length, by in zip(lengths, batch.categories, strict=True) if len(by) > 1]
    assert len(asked) > 10
    assert min(asked) >= tokens
