"""How long the client of a request waits: then its answer is of no use to anybody.

OpenAI's clients send the time after which they give up a silent connection; ours is a header of its
own. Both can only shorten what the operator allows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from server.errors import ApiError, invalid
from server.limits import Limits

OWN_HEADER = "x-request-timeout"
SDK_HEADER = "x-stainless-read-timeout"


@dataclass(frozen=True, slots=True)
class Patience:
    """In seconds, from the arrival of the request."""

    first_token_s: float
    whole_s: float
    silence_s: float
    """How long the client bears a silent connection: the whole answer, unless it is streamed."""

    @classmethod
    def read(cls, headers: Mapping[str, str], limits: Limits) -> Patience:
        """
        Args:
            headers: with names in lower case.

        Raises:
            ApiError: 400; our own header is no number of seconds.
        """
        asked = _seconds(headers.get(OWN_HEADER))
        if OWN_HEADER in headers and asked is None:
            raise invalid(
                f"The header {OWN_HEADER} must be a positive number of seconds.", param=OWN_HEADER
            )
        silence_s = _seconds(headers.get(SDK_HEADER)) or math.inf
        whole_s = min(asked or math.inf, limits.request_timeout_s)
        return cls(min(limits.queue_timeout_s, silence_s, whole_s), whole_s, silence_s)

    def total_s(self, *, stream: bool) -> float:
        return self.whole_s if stream else min(self.whole_s, self.silence_s)


ENDLESS = Patience(math.inf, math.inf, math.inf)


def _seconds(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 < value < math.inf else None


def too_busy(wait_s: float, patience_s: float) -> ApiError:
    """503: the answer would come too late, so nothing is begun."""
    return ApiError(
        503,
        "overloaded",
        f"A first token would take about {wait_s:.0f} s and this request waits {patience_s:.0f} s "
        "at most. Try again later.",
        retry_after_s=min(30, max(1, math.ceil(wait_s - patience_s))),
    )


def queue_timeout(patience_s: float) -> ApiError:
    return ApiError(
        503,
        "queue_timeout",
        f"The server was too busy to begin this answer within {patience_s:g} s. Try again later.",
        retry_after_s=5,
    )


def request_timeout(patience_s: float) -> ApiError:
    """The same request would take as long again, so clients are told not to repeat it."""
    return ApiError(
        503,
        "request_timeout",
        f"The answer was not complete within {patience_s:g} s.",
        headers={"x-should-retry": "false"},
    )
