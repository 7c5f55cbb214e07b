from __future__ import annotations

import pytest
import torch

from server.model.internvl import InternVLChat
from server.model.spec import ModelSpec
from server.model.weights import load_model
from tests import golden


@pytest.fixture(scope="session")
def model() -> InternVLChat:
    """The golden checkpoint in float32."""
    spec = ModelSpec.load(golden.CHECKPOINT)
    return load_model(golden.CHECKPOINT, spec, torch.float32, torch.device("cpu"))
