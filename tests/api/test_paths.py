from __future__ import annotations

import pytest

from server.api.paths import as_sent
from server.errors import ApiError, invalid

PATHS = {"messages": "input", "messages[1]": "input[0]", "stop": "stop_sequences"}


@pytest.mark.parametrize(
    ("param", "sent"),
    [
        ("messages", "input"),
        ("messages[1]", "input[0]"),
        ("messages[1].content[2].text", "input[0].content[2].text"),
        ("messages[10].role", "input[10].role"),
        ("stop[0]", "stop_sequences[0]"),
        ("stopping", "stopping"),
        ("temperature", "temperature"),
    ],
)
def test_the_longest_path_that_fits_is_replaced(param: str, sent: str) -> None:
    renamed = as_sent(invalid(f"Invalid '{param}'.", param=param), PATHS)
    assert (renamed.param, renamed.message) == (sent, f"Invalid '{sent}'.")


def test_a_field_that_contains_the_wrong_one_is_renamed_in_the_message_too() -> None:
    assert as_sent(invalid("Invalid 'stop'.", param="stop[0]"), PATHS).message == (
        "Invalid 'stop_sequences'."
    )


def test_everything_else_stays() -> None:
    failure = ApiError(429, "busy", "Later.", param="stop", retry_after_s=3)
    renamed = as_sent(failure, PATHS)
    assert (renamed.status, renamed.code, renamed.headers) == (429, "busy", {"retry-after": "3"})
    without = invalid("Wrong.", param=None)
    assert as_sent(without, PATHS) is without
