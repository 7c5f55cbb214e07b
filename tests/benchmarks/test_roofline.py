"""The floors of the 40B on a device with round ceilings."""

from __future__ import annotations

import pytest

from benchmarks.gpu.roofline import Ceilings, Roofline
from benchmarks.gpu.run import SHAPE
from server.model.spec import ModelSpec

LARGE = Roofline(ModelSpec.load(SHAPE), Ceilings(4.0e12, 4.3e12, 788e12))


def test_a_decode_step_streams_every_weight_once() -> None:
    assert LARGE.streamed_bytes == pytest.approx(67.86e9, rel=1e-3)
    assert LARGE.kv_token_bytes == 245_760
    assert LARGE.decode_s(1, 1024) == pytest.approx(15.84e-3, rel=2e-3)
    assert LARGE.decode_s(64, 1024) == pytest.approx(19.53e-3, rel=2e-3)


def test_many_rows_are_bound_by_products() -> None:
    assert LARGE.prefill_s(64) == pytest.approx(15.8e-3, rel=5e-3)
    assert LARGE.prefill_s(2048) == pytest.approx(178.6e-3, rel=5e-3)
    assert LARGE.prefill_s(512, 3584) == pytest.approx(47.8e-3, rel=1e-2)
    assert LARGE.mixed_s(64, 1024, 64) == pytest.approx(LARGE.decode_s(64, 1024), rel=1e-3)
    assert LARGE.mixed_s(64, 1024, 512) > LARGE.prefill_s(512)


def test_pictures() -> None:
    assert LARGE.vision_s(1) == pytest.approx(15.3e-3, rel=5e-3)
    assert LARGE.vision_s(8) == pytest.approx(8 * LARGE.vision_s(1))


def test_smaller_weights_stream_faster() -> None:
    eight_bits = Roofline(LARGE.spec, LARGE.ceilings, weight_bytes=1.0)
    assert eight_bits.decode_s(1, 1024) == pytest.approx(8.06e-3, rel=5e-3)
