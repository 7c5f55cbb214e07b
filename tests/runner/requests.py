"""The golden conversations and other requests as the engine gets them."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import torch

from server.distributed.groups import Groups
from server.engine.plan import RunnerLimits
from server.frontend.images import ImageLimits, image_digest, load_image
from server.kernels.attention import KVCache
from server.kernels.sdpa import BLOCK_SIZE
from server.messages import ImageRef, SamplingParams, Submit
from server.model.internvl import InternVLChat
from server.runner.runner import LocalRunner
from tests import golden

IMAGE_CONTEXT_ID = 1017
END_ID = 7
LIMITS = ImageLimits(max_bytes=2**20, max_pixels=2**20)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, its pictures, and what it is called."""

    name: str
    submit: Submit
    pixels: list[bytes]

    def numbered(self, request_id: int) -> Submit:
        return msgspec.structs.replace(self.submit, id=request_id)


def ask(
    name: str,
    token_ids: Sequence[int],
    pictures: Sequence[str],
    sampling: SamplingParams | None = None,
    *,
    max_tokens: int = 32,
    tokens_per_image: int = 4,
) -> Asked:
    """Runs of the placeholder token are the places of the pictures, in order."""
    pixels = [picture(file) for file in pictures]
    places = [i for i, token in enumerate(token_ids) if token == IMAGE_CONTEXT_ID]
    images = [
        ImageRef(image_digest(data), places[tokens_per_image * index], tokens_per_image)
        for index, data in enumerate(pixels)
    ]
    submit = Submit(
        id=0,
        prompt=array("i", token_ids).tobytes(),
        images=images,
        sampling=sampling or SamplingParams(temperature=0.0),
        max_tokens=max_tokens,
        stop_ids=[END_ID],
    )
    return Asked(name, submit, pixels)


def picture(file: str) -> bytes:
    data = (golden.IMAGES / file).read_bytes()
    return load_image(data, 56, "reference", LIMITS, "image")


def ask_golden(name: str) -> Asked:
    case = golden.case(name)
    return ask(name, case["token_ids"], case["images"])


def ask_golden_batch() -> tuple[list[Asked], list[list[int]]]:
    """The three samples of the authors' batch, and their answers."""
    batch: dict[str, Any] = golden.case("batch3")
    asked = [
        ask(f"batch3[{i}]", sample["token_ids"], [batch["images"][i]])
        for i, sample in enumerate(batch["samples"])
    ]
    return asked, [sample["generated_ids"] for sample in batch["samples"]]


def make_runner(model: InternVLChat, **changes: int) -> LocalRunner:
    """A runner over `model` with some limits changed."""
    return make_rank(model, Groups(), changes)


def make_rank(model: InternVLChat, groups: Groups, changes: dict[str, int]) -> LocalRunner:
    """The same over a rank's part of a model."""
    spec = model.spec
    values = {
        "slots": 32,
        "kv_blocks": 512,
        "kv_block_size": BLOCK_SIZE,
        "image_slots": 8,
        "image_cost_tokens": spec.image_cost_tokens,
        "step_token_budget": 512,
        "max_model_len": 256,
        "vocab_size": spec.text.vocab_size,
        "tokens_per_image": spec.tokens_per_image,
        "image_bytes": 3 * spec.vision.image_size**2,
    }
    limits = RunnerLimits(**(values | changes))
    cache = KVCache.allocate(
        num_layers=len(model.shard.text.layers),
        num_blocks=limits.kv_blocks,
        block_size=limits.kv_block_size,
        num_kv_heads=len(model.shard.text.kv_heads),
        head_dim=spec.text.head_dim,
        dtype=model.dtype,
        device=torch.device("cpu"),
    )
    return LocalRunner(model, cache, limits, groups)
