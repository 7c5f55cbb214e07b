"""The language model against the authors' numbers: prompts at once, in chunks, token by token."""

from __future__ import annotations

import random
from itertools import repeat
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional
from torch.testing import assert_close

from server.distributed.groups import Group
from server.kernels.ops import Rotary
from server.model.internvl import InternVLChat
from server.model.spec import ModelSpec
from server.model.weights import load_model
from tests.golden import CASES, CHECKPOINT, CONVERSATIONS, case
from tests.model.paged import PagedSequences
from tests.model.pictures import prompt_embeddings

TOLERANCE = 1e-3


def whole_conversation(model: InternVLChat, name: str) -> Tensor:
    """Embeddings of a prompt and of what the authors' code generated after it."""
    golden = case(name)
    return prompt_embeddings(model, golden, golden["generated_ids"][:-1])


def check_conversation(logits: Tensor, name: str) -> None:
    golden, length = load_file(CASES / f"{name}.safetensors"), len(case(name)["token_ids"])
    check_prompt(logits[:length], golden)
    check_steps(logits[length - 1 :], golden)


def check_prompt(logits: Tensor, golden: dict[str, Tensor]) -> None:
    assert_close(logits[-8:], golden["logits_last8"], atol=TOLERANCE, rtol=0)
    assert_close(logits.amax(-1), golden["max_all"], atol=TOLERANCE, rtol=0)
    assert_close(logits.logsumexp(-1), golden["logsumexp_all"], atol=TOLERANCE, rtol=0)
    assert logits.argmax(-1).tolist() == golden["argmax_all"].tolist()


def check_steps(logits: Tensor, golden: dict[str, Tensor], prefix: str = "") -> None:
    """`logits` are those of the last prompt token and of all generated tokens but the last."""
    best, expected = golden[f"{prefix}step_top5_ids"].long(), golden[f"{prefix}step_top5_logits"]
    assert_close(logits.topk(5).values, expected, atol=TOLERANCE, rtol=0)
    assert_close(logits.gather(1, best), expected, atol=TOLERANCE, rtol=0)
    assert logits.argmax(-1).tolist() == best[:, 0].tolist()


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_conversation_at_once(golden_model: InternVLChat, name: str) -> None:
    sequence = whole_conversation(golden_model, name)
    (logits,) = PagedSequences(golden_model, [sequence]).run([[len(sequence)]])
    check_conversation(logits, name)


@pytest.mark.parametrize("size", [1, 5, 16])
def test_conversations_side_by_side_in_chunks(golden_model: InternVLChat, size: int) -> None:
    names = ("text_zh_emoji", "two_separate_round2", "text_en", "video8_round2")
    sequences = [whole_conversation(golden_model, name) for name in names]
    results = PagedSequences(golden_model, sequences).run(repeat([size] * len(names)))
    for logits, name in zip(results, names, strict=True):
        check_conversation(logits, name)


@pytest.mark.parametrize("block_size", [1, 16, 64])
def test_conversations_in_a_random_mixture(golden_model: InternVLChat, block_size: int) -> None:
    names = ("image_multiround", "text_history", "text_eos", "video8")
    sequences = [whole_conversation(golden_model, name) for name in names]
    chance = random.Random(block_size)
    schedule = ([chance.choice((0, 1, 1, 2, 7, 40)) for _ in names] for _ in range(1000))
    results = PagedSequences(golden_model, sequences, block_size=block_size).run(schedule)
    for logits, name in zip(results, names, strict=True):
        check_conversation(logits, name)


@pytest.mark.parametrize("wanted", [[0], [4, 2], []])
def test_states_that_nobody_reads_are_left_out(
    golden_model: InternVLChat, wanted: list[int]
) -> None:
    tokens = whole_conversation(golden_model, "text_en")
    whole, part = (PagedSequences(golden_model, [tokens]) for _ in range(2))
    (states,) = whole.states([[len(tokens)]])
    batch = part.batch([0], [len(tokens)])
    read = golden_model.forward(tokens, part.cache, batch, torch.tensor(wanted, dtype=torch.int64))
    assert_close(read, states[wanted])
    assert torch.equal(part.cache.keys, whole.cache.keys)
    assert torch.equal(part.cache.values, whole.cache.values)


class CountingMatrix:
    """Counts the rows that it is multiplied with."""

    rows: ClassVar[set[int]] = set()
    size_bytes = 0

    def __init__(self, weight: Tensor, group: Group) -> None:
        self._weight = weight

    def __call__(self, x: Tensor, bias: Tensor | None) -> Tensor:
        self.rows.add(len(x))
        return functional.linear(x, self._weight, bias)


def test_no_matrix_is_multiplied_with_no_rows() -> None:
    """The kernel for 4 bits on a GPU cannot be launched for none."""
    spec, cpu = ModelSpec.load(CHECKPOINT), torch.device("cpu")
    model = load_model(CHECKPOINT, spec, torch.float32, cpu, pack=CountingMatrix)
    tokens = whole_conversation(model, "text_en")
    paged = PagedSequences(model, [tokens])
    batch, nobody = paged.batch([0], [len(tokens)]), torch.empty(0, dtype=torch.int64)
    states = model.forward(tokens, paged.cache, batch, nobody)
    assert model.logits(states).shape == (0, spec.text.vocab_size)
    assert CountingMatrix.rows == {len(tokens)}


def test_batch_of_three(golden_model: InternVLChat) -> None:
    golden = load_file(CASES / "batch3.safetensors")
    batch = case("batch3")
    samples = [
        sample | {"images": [image]}
        for sample, image in zip(batch["samples"], batch["images"], strict=True)
    ]
    sequences = [
        prompt_embeddings(golden_model, sample, sample["generated_ids"][:-1]) for sample in samples
    ]
    results = PagedSequences(golden_model, sequences).run([[len(s) for s in sequences]])
    for index, (logits, sample) in enumerate(zip(results, samples, strict=True)):
        length = len(sample["token_ids"])
        last = logits[length - 1 : length]
        assert_close(last, golden[f"{index}.logits_last1"], atol=TOLERANCE, rtol=0)
        assert logits[:length].argmax(-1).tolist() == golden[f"{index}.argmax_all"].tolist()
        check_steps(logits[length - 1 :], golden, prefix=f"{index}.")


def test_hidden_states_of_every_layer(golden_model: InternVLChat) -> None:
    language = golden_model.language
    x = prompt_embeddings(golden_model, case("text_en"), [])
    paged = PagedSequences(golden_model, [x])
    batch = paged.batch([0], [len(x)])
    rotary = Rotary(batch.positions, language.head_dim, language.rope_theta, x.dtype)
    states, branch = [x], None
    for layer in language.layers:
        x, branch = layer(x, branch, rotary, paged.cache, batch, ops=language.ops)
        states.append(x + branch)
    states[-1] = language.norm(states[-1])
    expected = load_file(CASES / "text_en.safetensors")["llm_hidden_states_last8"]
    assert_close(torch.stack(states)[:, -8:], expected, atol=1e-4, rtol=0)


def test_rotary_turns_pairs_by_position() -> None:
    rotary = Rotary(torch.tensor([0, 3]), 4, 100.0, torch.float32)
    x = torch.tensor([1.0, 2.0, 3.0, 4.0]).expand(2, 1, 4)
    turned = torch.view_as_complex(torch.stack([x[..., :2], x[..., 2:]], dim=-1).contiguous())
    turned[1, 0] *= torch.polar(torch.ones(2), 3.0 * torch.tensor([1.0, 100.0**-0.5]))
    expected = torch.cat([turned.real, turned.imag], dim=-1)
    assert_close(rotary(x), expected)


def test_rotary_angles_are_exact_in_bfloat16() -> None:
    positions = torch.tensor([4095])
    rounded = Rotary(positions, 16, 5e6, torch.bfloat16)
    exact = Rotary(positions, 16, 5e6, torch.float32)
    assert rounded.cos.dtype == torch.bfloat16
    assert torch.equal(rounded.cos, exact.cos.bfloat16())
