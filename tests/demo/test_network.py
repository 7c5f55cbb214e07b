from __future__ import annotations

import math

import pytest
import torch

from server.demo.examples import IGNORED, Batch, Recipe
from server.demo.network import HEADS, TOWER, BranchAttention, Network, Teaches
from server.frontend.prompt import IMAGE_CONTEXT
from server.frontend.tokenizer import Tokenizer
from server.model.internvl import InternVLChat
from server.model.spec import ModelSpec
from tests.demo.test_examples import batches, branch
from tests.model.paged import PagedSequences

Small = tuple[ModelSpec, Tokenizer]
RECIPE = Recipe(size_px=112, grid=2, pictures=2, tokens=120)


def network(small: Small) -> Network:
    spec, tokenizer = small
    return Network(spec, tokenizer.control_id(IMAGE_CONTEXT), 0, torch.device("cpu"))


def served_loss(model: InternVLChat, batch: Batch, picture_token: int) -> float:
    """Mean loss of all answers, each branch alone through the paged cache."""
    tokens = model.encode_images(batch.pixels)
    side = math.isqrt(tokens.shape[1])
    swapped = torch.unflatten(tokens, 1, (side, side)).transpose(1, 2).flatten(1, 2)
    pictures = iter(torch.where(batch.turned[:, None, None], swapped, tokens))
    losses = []
    for row, categories in enumerate(batch.categories):
        count = batch.token_ids[row].tolist().count(picture_token) // model.spec.tokens_per_image
        features = torch.cat([next(pictures) for _ in range(count)])
        for number in range(1, len(categories) + 1):
            ids, targets = (torch.tensor(part) for part in branch(batch, row, number))
            hidden = model.embed(ids)
            hidden[ids == picture_token] = features
            (logits,) = PagedSequences(model, [hidden]).run([[len(ids)]])
            learned = targets != IGNORED
            losses.append(
                torch.nn.functional.cross_entropy(
                    logits[learned], targets[learned], reduction="none"
                )
            )
    return torch.cat(losses).mean().item()


def test_training_computes_what_serving_computes(small: Small) -> None:
    trained = network(small)
    batch = batches(small, RECIPE)[0]
    with torch.no_grad():
        loss = trained.losses(batch).answers.item()
        served = served_loss(trained.model, batch, small[1].control_id(IMAGE_CONTEXT))
    assert abs(loss - served) < 1e-4


def test_gradients_stand_beside_their_weights(small: Small) -> None:
    trained = network(small)
    weights, gradients = trained.weights(), trained.gradients()
    assert weights.keys() == gradients.keys()
    assert weights.keys() >= set(HEADS)
    losses = trained.losses(batches(small, RECIPE)[0])
    torch.autograd.backward(losses.answers + losses.patches + losses.mentions)
    for name, weight in weights.items():
        assert gradients[name].shape == weight.shape, name
    still = {name for name, gradient in gradients.items() if not gradient.any()}
    # The class token is read by other patches only.
    assert not still, still
    trained.clear_gradients()
    assert not any(gradient.any() for gradient in gradients.values())


@pytest.mark.parametrize("teaches", ["each alone", "both", "language"])
def test_answers_teach_the_tower_only_where_both_are_trained(
    small: Small, teaches: Teaches
) -> None:
    trained = network(small)
    losses = trained.losses(batches(small, RECIPE)[0], teaches)
    torch.autograd.backward(losses.answers)
    reached = {name for name, gradient in trained.gradients().items() if gradient.any()}
    assert any(name.startswith(TOWER) for name in reached) == (teaches == "both")
    assert any(name.startswith("mlp1") for name in reached)
    assert losses.patches.requires_grad == (teaches != "language")


def test_branches_do_not_see_each_other(small: Small) -> None:
    rows = torch.tensor([[0, 0, 1, 1, 2, -1]])
    empty = torch.zeros(0)
    batch = Batch(empty, (0, 0), empty, empty, rows, rows, rows, rows, empty, ())
    spec, _ = small
    bias = BranchAttention.of(batch, spec.text, torch.float32).bias
    by_head = torch.unflatten(bias, 1, (-1, 6))
    assert (by_head == bias[:, None, :6]).all(), "every head sees the same"
    assert (bias[0, :6] == 0).int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [1, 1, 0, 0, 0, 1],
    ]


def test_small_pictures_are_windows_of_the_grid(small: Small) -> None:
    trained = network(small)
    batch = batches(small, Recipe(size_px=56, grid=2, pictures=2, tokens=0))[0]
    with torch.no_grad():
        trained.patch_head.fill_(1).mul_(torch.arange(len(trained.patch_head))[:, None])
    torch.autograd.backward(trained.losses(batch).patches)
    gradient = trained.gradients()["vision_model.embeddings.position_embedding"][0, 1:]
    touched = gradient.any(-1).view(8, 8)
    row, column = batch.window
    window = torch.zeros(8, 8, dtype=torch.bool)
    window[row : row + 4, column : column + 4] = True
    assert torch.equal(touched, window)


def test_an_answer_is_right_when_all_its_tokens_are(small: Small) -> None:
    trained = network(small)
    batch = batches(small, RECIPE)[0]
    right = trained.losses(batch).right
    assert right.shape == (len(batch.categories), max(map(len, batch.categories)))
    assert right.sum() < right.numel() / 4
