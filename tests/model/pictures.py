"""Prompts of the golden data as the language model sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from server.model.internvl import InternVLChat
from tests.golden import IMAGES

IMAGE_CONTEXT_ID = 1017


def golden_pixels(names: Sequence[str]) -> Tensor:
    """Pictures as the model card's code resizes them: uint8 [N, 56, 56, 3]."""
    pictures = [Image.open(IMAGES / name).resize((56, 56)).convert("RGB") for name in names]
    return torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures]))


def prompt_embeddings(model: InternVLChat, case: dict[str, Any], more_ids: list[int]) -> Tensor:
    """Embeddings [T, hidden] of a prompt with its pictures in place, and of `more_ids` after it."""
    token_ids = torch.tensor(case["token_ids"])
    prompt = model.embed(token_ids)
    if case["images"]:
        pictures = model.encode_images(golden_pixels(case["images"]))
        prompt[token_ids == IMAGE_CONTEXT_ID] = pictures.flatten(0, 1)
    return torch.cat([prompt, model.embed(torch.tensor(more_ids, dtype=torch.int64))])
