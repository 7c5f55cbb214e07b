from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from server.model.internvl import InternVLChat
from server.model.spec import ModelSpec
from server.model.weights import load_model
from tests.golden import CASES, CHECKPOINT


@pytest.fixture(scope="session")
def golden_model() -> InternVLChat:
    """The golden checkpoint in float32."""
    spec = ModelSpec.load(CHECKPOINT)
    return load_model(CHECKPOINT, spec, torch.float32, torch.device("cpu"))


@pytest.fixture(scope="session")
def golden_images() -> dict[str, Tensor]:
    return load_file(CASES / "images.safetensors")
