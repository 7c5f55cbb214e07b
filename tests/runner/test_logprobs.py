"""Log probabilities of prompts and answers, against those of the authors' code."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from server.messages import SamplingParams, TokenLogprob
from server.model.internvl import InternVLChat
from server.runner.logprobs import Logprobs
from tests import golden
from tests.engine.harness import Harness
from tests.runner.requests import Asked, ask, make_runner

GREEDY = SamplingParams(temperature=0.0, logprobs=5)


def run(model: InternVLChat, asked: Asked, prompt_logprobs: int | None, **limits: int) -> Harness:
    runner = make_runner(model, **limits)
    harness = Harness(runner)
    for request_id in range(2):  # the second would find the prefix of the first
        submit = msgspec.structs.replace(
            asked.numbered(request_id), prompt_logprobs=prompt_logprobs
        )
        harness.submit(submit, asked.pixels)
        harness.run()
    runner.close()
    return harness


def answers(harness: Harness, request_id: int) -> list[TokenLogprob]:
    deltas = harness.deltas[request_id]
    assert all(len(delta.logprobs or []) == len(delta.token_ids) for delta in deltas)
    return [entry for delta in deltas for entry in delta.logprobs or []]


def test_they_are_the_logarithm_of_the_softmax() -> None:
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(1))
    token_ids = torch.tensor([4, 0, 49])
    expected = logits.log_softmax(-1)
    listed = Logprobs.of(logits, token_ids, 4).listed([4, 0, 2])
    for row, (entry, count) in enumerate(zip(listed, [4, 0, 2], strict=True)):
        assert entry.logprob == pytest.approx(float(expected[row, token_ids[row]]), abs=1e-5)
        top = expected[row].topk(count)
        assert entry.top_ids == top.indices.tolist()
        assert entry.top_logprobs == pytest.approx(top.values.tolist(), abs=1e-5)


@pytest.mark.parametrize("name", ["text_en", "image_single", "two_separate_round2"])
@pytest.mark.parametrize("budget", [512, 7])
def test_the_prompts_are_those_of_the_authors(model: InternVLChat, name: str, budget: int) -> None:
    case = golden.case(name)
    tensors = load_file(golden.CASES / f"{name}.safetensors")
    best = (tensors["max_all"] - tensors["logsumexp_all"]).tolist()
    asked = ask(name, case["token_ids"], case["images"], GREEDY, max_tokens=4)
    harness = run(model, asked, 1, step_token_budget=budget)
    for request_id in range(2):
        first, *others = harness.deltas[request_id]
        entries = first.prompt_logprobs
        assert entries is not None
        assert len(entries) == len(case["token_ids"]) - 1
        assert all(delta.prompt_logprobs is None for delta in others)
        for position, entry in enumerate(entries):
            assert entry.top_ids == [int(tensors["argmax_all"][position])]
            assert entry.top_logprobs[0] == pytest.approx(best[position], abs=1e-3)
            assert entry.logprob <= entry.top_logprobs[0] + 1e-6
        assert harness.tokens(request_id) == case["generated_ids"][:4]


def test_few_logits_exist_at_once(model: InternVLChat, monkeypatch: pytest.MonkeyPatch) -> None:
    case = golden.case("two_separate_round2")
    asked = ask("a", case["token_ids"], case["images"], GREEDY, max_tokens=4)
    whole = run(model, asked, 3)
    rows, logits = [], InternVLChat.logits

    def counting(self: InternVLChat, hidden: Tensor) -> Tensor:
        rows.append(len(hidden))
        return logits(self, hidden)

    monkeypatch.setattr(InternVLChat, "logits", counting)
    monkeypatch.setattr("server.runner.runner.LOGITS_AT_ONCE", 5)
    sliced = run(model, asked, 3)
    assert max(rows) == 5
    for request_id in range(2):
        parts, at_once = (h.deltas[request_id][0].prompt_logprobs for h in (sliced, whole))
        assert parts is not None and at_once is not None
        for part, other in zip(parts, at_once, strict=True):
            assert part.top_ids == other.top_ids
            assert part.logprob == pytest.approx(other.logprob, abs=1e-5)


def test_behind_the_prompt_steps_are_as_short_as_any(
    model: InternVLChat, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = make_runner(model, step_token_budget=64)
    layers = runner._layers
    counts: list[tuple[int, int]] = []

    def counting(hidden: Tensor, *others: Any) -> Tensor:
        states = layers(hidden, *others)
        counts.append((len(hidden), len(states)))
        return states

    monkeypatch.setattr(runner, "_layers", counting)
    prompt = golden.case("text_en")["token_ids"]
    asked = ask("reported", prompt, [], GREEDY, max_tokens=4)
    harness = Harness(runner)
    harness.submit(msgspec.structs.replace(asked.submit, prompt_logprobs=0))
    harness.step()
    harness.submit(ask("long", range(100, 200), [], GREEDY, max_tokens=1).numbered(1))
    harness.run()
    runner.close()
    assert counts[0] == (len(prompt), len(prompt))
    assert counts[1:4] == [(64, 1), (38, 2), (1, 1)]


def test_the_answers_are_those_of_the_authors(model: InternVLChat) -> None:
    case = golden.case("text_en")
    tensors = load_file(golden.CASES / "text_en.safetensors")
    asked = ask("text_en", case["token_ids"], [], GREEDY)
    entries = answers(run(model, asked, None), 0)
    assert len(entries) == len(case["generated_ids"])
    for step, entry in enumerate(entries):
        assert entry.top_ids == tensors["step_top5_ids"][step].tolist()
        gaps = (tensors["step_top5_logits"][step] - tensors["step_top5_logits"][step, 0]).tolist()
        assert [p - entry.top_logprobs[0] for p in entry.top_logprobs] == pytest.approx(
            gaps, abs=2e-3
        )
        assert entry.logprob == pytest.approx(entry.top_logprobs[0])


def test_nothing_bends_them(model: InternVLChat) -> None:
    """Temperature, penalties and biases change what is drawn, not what the model thought."""
    case = golden.case("text_en")
    plain = answers(run(model, ask("a", case["token_ids"], [], GREEDY, max_tokens=1), None), 0)
    bent = SamplingParams(temperature=0.3, top_k=3, logit_bias={77: 99.0}, logprobs=5, seed=1)
    forced = run(model, ask("b", case["token_ids"], [], bent, max_tokens=1), None)
    (entry,) = answers(forced, 0)
    assert forced.tokens(0) == [77]
    assert entry.top_ids == plain[0].top_ids
    assert entry.top_logprobs == pytest.approx(plain[0].top_logprobs, abs=1e-4)
    assert entry.logprob < plain[0].logprob


def test_a_preempted_prompt_is_reported_once(model: InternVLChat) -> None:
    case = golden.case("text_history")
    runner = make_runner(model, kv_blocks=8, max_model_len=128, step_token_budget=20)
    harness = Harness(runner)
    for request_id in range(3):
        asked = ask("x", case["token_ids"], [], GREEDY, max_tokens=30)
        harness.submit(
            msgspec.structs.replace(asked.numbered(request_id), prompt_logprobs=0), asked.pixels
        )
    harness.run()
    runner.close()
    assert harness.scheduler.gauges().preemptions_total >= 0
    for request_id in range(3):
        entries = harness.deltas[request_id][0].prompt_logprobs
        assert entries is not None
        assert len(entries) == len(case["token_ids"]) - 1
        assert harness.tokens(request_id) == case["generated_ids"][:30]
