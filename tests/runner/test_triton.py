"""The whole model over our own kernels, interpreted: the authors' tokens."""

from __future__ import annotations

import torch

from server.kernels.attention import KVCache
from server.kernels.triton.attention import BLOCK_SIZE, TritonBatch
from server.kernels.triton.ops import TritonOps
from server.model.spec import ModelSpec
from server.model.weights import load_model
from server.runner.runner import LocalRunner
from tests import golden
from tests.engine.harness import Harness
from tests.runner.requests import ask, make_runner

TOKENS = 3


def test_a_picture_and_its_answer() -> None:
    device = torch.device("cpu")
    spec = ModelSpec.load(golden.CHECKPOINT)
    model = load_model(golden.CHECKPOINT, spec, torch.float32, device)
    model.use(TritonOps())
    plain = make_runner(model, kv_block_size=BLOCK_SIZE, kv_blocks=4, slots=1, image_slots=1)
    plain.close()
    cache = KVCache.allocate(
        num_layers=spec.text.num_layers,
        num_blocks=5,
        block_size=BLOCK_SIZE,
        num_kv_heads=spec.text.num_kv_heads,
        head_dim=spec.text.head_dim,
        dtype=torch.float32,
        device=device,
    )
    runner = LocalRunner(model, cache, plain.limits, batch=TritonBatch)
    harness = Harness(runner)
    case = golden.case("image_single")
    asked = ask("short", case["token_ids"], case["images"], max_tokens=TOKENS)
    harness.submit(asked.numbered(0), asked.pixels)
    harness.run()
    runner.close()
    assert harness.tokens(0) == case["generated_ids"][:TOKENS]
