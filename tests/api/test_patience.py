from __future__ import annotations

import math

import pytest

from server.api.patience import Patience
from server.errors import ApiError
from server.limits import Limits

LIMITS = Limits(queue_timeout_s=60, request_timeout_s=600)


def test_without_headers_the_operator_decides() -> None:
    patience = Patience.read({}, LIMITS)
    assert patience == Patience(60, 600, math.inf)
    assert patience.total_s(stream=False) == patience.total_s(stream=True) == 600


def test_a_client_can_only_be_less_patient() -> None:
    assert Patience.read({"x-request-timeout": "9999"}, LIMITS).whole_s == 600
    assert Patience.read({"x-request-timeout": "2.5"}, LIMITS) == Patience(2.5, 2.5, math.inf)


def test_what_openais_client_bears_is_silence() -> None:
    patience = Patience.read({"x-stainless-read-timeout": "30"}, LIMITS)
    assert patience.first_token_s == 30
    assert patience.total_s(stream=False) == 30
    assert patience.total_s(stream=True) == 600


@pytest.mark.parametrize("value", ["None", "", "-1", "nan", "inf", "0", "x" * 1000])
def test_what_openais_client_sends_never_fails(value: str) -> None:
    assert Patience.read({"x-stainless-read-timeout": value}, LIMITS).first_token_s == 60


@pytest.mark.parametrize("value", ["soon", "", "-1", "nan", "inf", "0"])
def test_our_own_header_is_checked(value: str) -> None:
    with pytest.raises(ApiError) as caught:
        Patience.read({"x-request-timeout": value}, LIMITS)
    assert (caught.value.status, caught.value.param) == (400, "x-request-timeout")
