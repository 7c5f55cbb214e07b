from __future__ import annotations

import pytest

from server.api.responses import error_response, internal_error
from server.errors import ApiError, invalid, model_loading


@pytest.mark.parametrize(
    ("failure", "should_retry", "retry_after_ms"),
    [
        (model_loading(retry_after_s=7), "true", "7000"),
        (ApiError(429, "rate_limit_exceeded", "Later.", retry_after_s=2), "true", "2000"),
        (invalid("No.", param="n"), "false", None),
        (ApiError(404, "unknown_url", "No."), "false", None),
        (internal_error(), None, None),
    ],
)
def test_what_clients_look_at_before_they_try_again(
    failure: ApiError, should_retry: str | None, retry_after_ms: str | None
) -> None:
    headers = error_response(failure).headers
    assert headers.get("x-should-retry") == should_retry
    assert headers.get("retry-after-ms") == retry_after_ms
