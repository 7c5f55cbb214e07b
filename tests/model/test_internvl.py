from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from server.model.internvl import InternVLChat, normalise, pixel_shuffle
from server.model.spec import ModelSpec
from server.model.weights import load_model
from tests.golden import CASES, CHECKPOINT, IMAGES, case
from tests.model.paged import PagedSequences
from tests.model.pictures import golden_pixels, prompt_embeddings

PICTURES = sorted(path.name for path in IMAGES.iterdir())


@pytest.mark.parametrize("picture", PICTURES)
def test_embeddings_of_a_picture(
    golden_model: InternVLChat, golden_images: dict[str, Tensor], picture: str
) -> None:
    embeddings = golden_model.encode_images(golden_pixels([picture]))
    expected = golden_images[f"{picture.partition('.')[0]}.vit_embeds"]
    assert_close(embeddings, expected[None], atol=1e-4, rtol=0)


def test_pictures_do_not_disturb_each_other(
    golden_model: InternVLChat, golden_images: dict[str, Tensor]
) -> None:
    embeddings = golden_model.encode_images(golden_pixels(PICTURES))
    expected = [golden_images[f"{name.partition('.')[0]}.vit_embeds"] for name in PICTURES]
    assert_close(embeddings, torch.stack(expected), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["rgb_square", "exif6"])
def test_normalised_pixels_are_the_authors(golden_images: dict[str, Tensor], name: str) -> None:
    pixels = normalise(golden_images[f"{name}.resized_u8"][None])
    assert torch.equal(pixels[0], golden_images[f"{name}.pixel_values"])


def naive_shuffle(patches: Tensor, side: int, *, by_column: bool) -> Tensor:
    rows, columns = patches.shape[1] // side, patches.shape[2] // side
    squares = [(row, column) for row in range(rows) for column in range(columns)]
    if by_column:
        squares = [(row, column) for column in range(columns) for row in range(rows)]
    tokens = [
        torch.cat(
            [
                patches[:, side * row + i, side * column + j]
                for i in range(side)
                for j in range(side)
            ],
            dim=-1,
        )
        for row, column in squares
    ]
    return torch.stack(tokens, dim=1)


@pytest.mark.parametrize("shape", [(2, 4, 4, 3), (1, 8, 8, 5), (1, 4, 6, 2), (3, 6, 6, 1)])
@pytest.mark.parametrize("side", [1, 2])
def test_pixel_shuffle_equals_a_loop(shape: tuple[int, ...], side: int) -> None:
    patches = torch.arange(torch.Size(shape).numel()).view(shape)
    by_column = pixel_shuffle(patches, side, "v1")
    by_row = pixel_shuffle(patches, side, "v2")
    assert torch.equal(by_column, naive_shuffle(patches, side, by_column=True))
    assert torch.equal(by_row, naive_shuffle(patches, side, by_column=False))
    assert not torch.equal(by_column, by_row)


def test_bfloat16_stays_near_float32() -> None:
    """The authors' own bfloat16 is up to 0.5 away on this prompt, 0.07 on average."""
    spec = ModelSpec.load(CHECKPOINT)
    model = load_model(CHECKPOINT, spec, torch.bfloat16, torch.device("cpu"))
    prompt = prompt_embeddings(model, case("image_single"), [])
    (logits,) = PagedSequences(model, [prompt]).run([[len(prompt)]])
    expected = load_file(CASES / "image_single.safetensors")["logits_last8"]
    assert prompt.dtype == torch.bfloat16
    assert logits.dtype == torch.float32
    difference = (logits[-8:] - expected).abs()
    assert difference.max() < 0.8
    assert difference.mean() < 0.12
