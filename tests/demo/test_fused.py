from __future__ import annotations

import pytest
import torch

from server.demo.examples import Recipe
from server.demo.fused import FusedOps, can_compile
from server.demo.network import Network, TrainingOps
from server.frontend.prompt import IMAGE_CONTEXT
from server.frontend.tokenizer import Tokenizer
from server.kernels.ops import Ops
from server.model.spec import ModelSpec
from tests.demo.test_examples import batches

Small = tuple[ModelSpec, Tokenizer]


def loss_and_gradients(small: Small, ops: Ops) -> tuple[float, dict[str, torch.Tensor]]:
    spec, tokenizer = small
    picture_token = tokenizer.control_id(IMAGE_CONTEXT)
    network = Network(spec, picture_token, 0, torch.device("cpu"), ops)
    losses = network.losses(batches(small, Recipe(size_px=112, grid=2, pictures=2, tokens=60))[0])
    total = losses.answers + losses.patches + losses.mentions
    torch.autograd.backward(total)
    return total.item(), network.gradients()


@pytest.mark.filterwarnings("ignore")  # torch.compile warns of what it does itself
@pytest.mark.skipif(not can_compile(), reason="no C++ compiler, so nothing is fused")
def test_a_fused_step_computes_the_same(small: Small) -> None:
    loss, gradients = loss_and_gradients(small, TrainingOps())
    fused_loss, fused_gradients = loss_and_gradients(small, FusedOps(torch.float32))
    assert fused_loss == pytest.approx(loss, rel=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            fused_gradients[name], gradient, rtol=1e-3, atol=1e-4 * gradient.abs().max().item()
        )
