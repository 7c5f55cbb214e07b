"""A request's tokens are its own with quantised weights too, and the served forms are the model."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch.testing import assert_close

from server.model.checkpoint import linears
from server.model.internvl import InternVLChat
from server.model.packing import OneDnnMatrix
from server.model.quantization import packing
from server.model.spec import ModelSpec
from server.model.weights import load_model
from server.settings import Quantization
from tests import golden
from tests.engine.harness import Harness
from tests.model.paged import PagedSequences
from tests.model.test_llama import whole_conversation
from tests.runner.requests import Asked, ask, ask_golden, make_runner
from tests.runner.test_invariance import SAMPLED

SPEC = ModelSpec.load(golden.CHECKPOINT)
NAMES = ("text_zh_emoji", "image_single", "two_separate_round2", "text_history")


def crowd() -> list[Asked]:
    asked = [ask_golden(name) for name in NAMES]
    for index, sampling in enumerate(SAMPLED):
        case = golden.case(NAMES[index % len(NAMES)])
        name = f"sampled {index}"
        asked.append(ask(name, case["token_ids"], case["images"], sampling, max_tokens=16))
    return asked


CROWD = crowd()


def load(quantization: Quantization) -> InternVLChat:
    device = torch.device("cpu")
    pack = packing(quantization, device)
    model = load_model(golden.CHECKPOINT, SPEC, torch.float32, device, pack=pack)
    for linear in linears(model):
        linear.pack(OneDnnMatrix)
    return model


def answers(model: InternVLChat, requests: Sequence[Asked], **limits: int) -> list[list[int]]:
    runner = make_runner(model, **limits)
    try:
        harness = Harness(runner, prefix_cache=False)
        for request_id, asked in enumerate(requests):
            harness.submit(asked.numbered(request_id), asked.pixels)
        harness.run()
        return [harness.tokens(request_id) for request_id in range(len(requests))]
    finally:
        runner.close()


@pytest.mark.parametrize("quantization", ["none", "int8", "fp8", "int4"])
def test_alone_and_in_a_crowd(quantization: Quantization) -> None:
    model = load(quantization)
    alone = [answers(model, [asked])[0] for asked in CROWD]
    assert answers(model, CROWD) == alone
    assert answers(model, CROWD, slots=5, step_token_budget=16) == alone
    if quantization == "none":
        expected = [golden.case(name)["generated_ids"] for name in NAMES]
        assert alone[: len(NAMES)] == expected


@pytest.mark.parametrize(("quantization", "error"), [("int8", 0.25), ("fp8", 1.0), ("int4", 1.8)])
def test_logits_stay_near(model: InternVLChat, quantization: Quantization, error: float) -> None:
    """Of a random model, with logits of deviation 2.7; it forgives less than a trained one."""
    results = []
    for one in (model, load(quantization)):
        tokens = whole_conversation(one, "two_separate_round2")
        results.append(PagedSequences(one, [tokens]).run([[len(tokens)]])[0])
    exact, near = results
    deviation = float((near - exact).std())
    assert 0.001 < deviation < error
    assert_close(near.mean(), exact.mean(), atol=error, rtol=0)
