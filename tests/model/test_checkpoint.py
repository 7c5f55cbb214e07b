from __future__ import annotations

from dataclasses import replace

import torch
from safetensors.torch import load_file
from torch import Tensor

from server.model.checkpoint import checkpoint_tensors
from server.model.internvl import InternVLChat
from server.model.layers import META
from server.model.spec import ModelSpec
from tests.golden import CHECKPOINT


def golden_shapes() -> dict[str, list[int]]:
    return {
        name: list(tensor.shape)
        for path in CHECKPOINT.glob("*.safetensors")
        for name, tensor in load_file(path).items()
    }


def test_names_and_shapes_are_those_of_the_authors_checkpoint() -> None:
    tensors = checkpoint_tensors(InternVLChat(ModelSpec.load(CHECKPOINT), META))
    assert {name: list(tensor.shape) for name, tensor in tensors.items()} == golden_shapes()


def test_every_element_of_every_parameter_is_named_once() -> None:
    parameters: list[Tensor] = []

    def new(*shape: int) -> Tensor:
        parameters.append(torch.zeros(shape))
        return parameters[-1]

    for target in checkpoint_tensors(InternVLChat(ModelSpec.load(CHECKPOINT), new)).values():
        target.add_(1)
    assert parameters
    assert all(bool((parameter == 1).all()) for parameter in parameters)


def test_unused_vision_layers_are_named_but_not_kept() -> None:
    spec = ModelSpec.load(CHECKPOINT)
    spec = replace(spec, vision=replace(spec.vision, layers_used=1))
    tensors = checkpoint_tensors(InternVLChat(spec, lambda *shape: torch.zeros(shape)))
    assert {name: list(tensor.shape) for name, tensor in tensors.items()} == golden_shapes()
    unused = {name for name, tensor in tensors.items() if tensor.is_meta}
    assert unused == {
        name
        for name in tensors
        if name.startswith("vision_model.encoder.layers.") and ".0." not in name
    }
