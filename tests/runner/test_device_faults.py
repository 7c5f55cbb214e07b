"""Devices without memory, in a real runner: the injected exceptions are those that torch raises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from server.messages import FinishReason
from server.model.internvl import InternVLChat
from server.runner.device_faults import is_device_lost, is_out_of_memory
from tests import golden
from tests.engine.harness import Harness
from tests.runner.requests import ask_golden, make_runner

TEXT, PICTURE = ask_golden("text_en"), ask_golden("image_single")


class FailsOnce:
    """In the place of a function of the model: at its `call`th call there is no memory."""

    def __init__(self, function: Callable[..., Any], failure: BaseException, call: int) -> None:
        self._function = function
        self._failure = failure
        self._left = call

    def __call__(self, *args: Any, **named: Any) -> Any:
        self._left -= 1
        if self._left == 0:
            raise self._failure
        return self._function(*args, **named)


def cpu_without_memory() -> BaseException:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    return caught.value


@pytest.mark.parametrize(
    "failure", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError(), cpu_without_memory()]
)
def test_a_picture_that_does_not_fit_fails_alone(
    model: InternVLChat, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    monkeypatch.setattr(model, "encode_images", FailsOnce(model.encode_images, failure, 1))
    runner = make_runner(model)
    crowd = Harness(runner)
    crowd.submit(TEXT.numbered(0))
    for _ in range(4):
        crowd.step()
    crowd.submit(PICTURE.numbered(1), PICTURE.pixels)
    crowd.run()
    assert crowd.finish(1) is FinishReason.ERROR
    assert crowd.tokens(0) == golden.case("text_en")["generated_ids"]
    crowd.submit(PICTURE.numbered(2), PICTURE.pixels)
    crowd.run()
    assert crowd.tokens(2) == golden.case("image_single")["generated_ids"]
    runner.close()


def test_a_prompt_that_does_not_fit_fails_alone(
    model: InternVLChat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even half of its step counts for those beside it."""
    failure = torch.OutOfMemoryError("CUDA out of memory.")
    runner = make_runner(model)
    crowd = Harness(runner)
    crowd.submit(PICTURE.numbered(0), PICTURE.pixels)
    for _ in range(6):
        crowd.step()
    monkeypatch.setattr(model, "logits", FailsOnce(model.logits, failure, 2))
    crowd.submit(TEXT.numbered(1))
    crowd.run()
    assert crowd.finish(1) is FinishReason.ERROR
    assert crowd.tokens(0) == golden.case("image_single")["generated_ids"]
    runner.close()


def test_faults_are_told_apart() -> None:
    lost = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    assert is_device_lost(lost) and not is_out_of_memory(lost)
    for other in (torch.OutOfMemoryError("no"), RuntimeError("CUDA"), ValueError("CUDA")):
        assert not is_device_lost(other)
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
