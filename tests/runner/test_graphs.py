"""Decode steps as graphs, with a capture that simply repeats the work: the tensors are the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from server.kernels.attention import KVCache
from server.messages import SamplingParams
from server.model.internvl import InternVLChat
from server.runner.graphs import VisionGraphs, Work, graph_sizes
from server.runner.runner import LocalRunner
from tests import golden
from tests.engine.harness import Harness
from tests.kernels.fake_flash import fake_flash
from tests.runner.requests import Asked, ask, ask_golden, make_runner
from tests.runner.test_speculation import prompts

NAMES = ("text_en", "image_single", "text_eos", "two_combined", "text_zh_emoji")


class Repeats:
    """Counts how often graphs of each size ran."""

    def __init__(self) -> None:
        self.replays: dict[int, int] = {}
        self.pictures: dict[int, int] = {}

    def __call__(self, work: Work) -> tuple[Callable[[], None], Tensor]:
        result = work()
        # Pictures have a dimension more than logits.
        replays = self.replays if result.dim() == 2 else self.pictures
        size = len(result)

        def replay() -> None:
            replays[size] = replays.get(size, 0) + 1
            result.copy_(work())

        return replay, result


def graph_runner(model: InternVLChat, capture: Repeats) -> LocalRunner:
    plain = make_runner(model, kv_block_size=256, kv_blocks=20, slots=6)
    plain.close()
    text = model.spec.text
    cache = KVCache.allocate(
        num_layers=text.num_layers,
        num_blocks=21,
        block_size=256,
        num_kv_heads=text.num_kv_heads,
        head_dim=text.head_dim,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )
    with fake_flash() as batch:
        runner = LocalRunner(model, cache, plain.limits, batch=batch)
        runner.capture_graphs(batch, capture)
    return runner


def requests() -> list[Asked]:
    asked = [ask_golden(name) for name in NAMES]
    case = golden.case("text_history")
    sampling = SamplingParams(seed=4, top_p=0.9, logprobs=2, frequency_penalty=0.3)
    return [*asked, ask("sampled", case["token_ids"], [], sampling, max_tokens=20)]


@pytest.fixture(scope="module")
def alone(model: InternVLChat) -> list[list[int]]:
    runner = make_runner(model)
    harness = Harness(runner)
    for request_id, asked in enumerate(requests()):
        harness.submit(asked.numbered(request_id), asked.pixels)
    harness.run()
    runner.close()
    return [harness.tokens(request_id) for request_id in range(len(NAMES) + 1)]


def test_graphs_give_the_same_tokens(model: InternVLChat, alone: list[list[int]]) -> None:
    assert alone[0] == golden.case("text_en")["generated_ids"]
    capture = Repeats()
    runner = graph_runner(model, capture)
    harness = Harness(runner)
    for request_id, asked in enumerate(requests()):
        harness.submit(asked.numbered(request_id), asked.pixels)
    harness.run()
    runner.close()
    assert [harness.tokens(request_id) for request_id in range(len(alone))] == alone
    assert len(capture.replays) > 1, "smaller graphs as requests end"
    assert sum(capture.replays.values()) > 25
    assert capture.pictures, "pictures go through graphs as well"


def test_rows_with_guesses_are_rows_of_a_graph(model: InternVLChat) -> None:
    asked = [one for one in prompts(20) if one.submit.sampling.allowed_token_ids]
    capture = Repeats()
    runners = [make_runner(model), graph_runner(model, capture)]
    runs = [Harness(runner, speculate=runner is runners[1]) for runner in runners]
    for run, runner in zip(runs, runners, strict=True):
        for request_id, one in enumerate(asked):
            run.submit(one.numbered(request_id))
            run.run()
        runner.close()
    for request_id in range(len(asked)):
        assert runs[0].tokens(request_id) == runs[1].tokens(request_id)
    assert runs[1].scheduler.gauges().confirmed_tokens_total > 10
    assert capture.replays[4], "one request at a time needs one row without guesses"


def test_pictures_come_back_in_their_order(model: InternVLChat) -> None:
    capture = Repeats()
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (11, 56, 56, 3), generator=generator).to(torch.uint8)
    with torch.inference_mode():
        graphs = VisionGraphs(model, torch.device("cpu"), capture)
        encoded = graphs.encode(pixels)
        assert_close(encoded, model.encode_images(pixels), atol=1e-5, rtol=1e-5)
    assert capture.pictures == {8: 1, 4: 1}


def test_sizes_reach_the_slots_and_stay_few() -> None:
    assert graph_sizes(1) == [1]
    assert graph_sizes(6) == [1, 2, 4, 6]
    assert graph_sizes(64) == [1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64]
    assert graph_sizes(100)[-2:] == [96, 100]
    assert len(graph_sizes(256)) <= 24
