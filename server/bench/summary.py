"""The figures of a point, as the field defines them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from server.bench.client import Measured
from server.bench.plan import BenchError

LIMITED = ("ttft", "tpot", "e2e")


class Spread(msgspec.Struct, frozen=True):
    """Of a time, in milliseconds."""

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float


class Summary(msgspec.Struct, frozen=True):
    """Of the requests that ended well; the others are only counted."""

    completed: int
    failed: int
    seconds: float
    """From the first request to the last token."""
    requests_per_s: float
    output_tokens_per_s: float
    total_tokens_per_s: float
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    ttft_ms: Spread | None
    tpot_ms: Spread | None
    itl_ms: Spread | None
    e2e_ms: Spread | None
    good_requests_per_s: float | None
    """Those within all limits; None where there are no limits."""
    lag_p99_ms: float
    """How late the load generator sent its requests."""
    client_cpu_share: float
    """Of one core; near 1 the load generator measures itself."""


Limits = dict[str, float]
"""Milliseconds for some of `LIMITED`."""


def parse_limits(words: Sequence[str]) -> Limits:
    """`ttft:2000` and the like.

    Raises:
        BenchError: names what is wrong.
    """
    limits = {}
    for word in words:
        name, _, value = word.partition(":")
        try:
            limits[name] = float(value)
        except ValueError:
            name = ""
        if name not in LIMITED:
            raise BenchError(f"--goodput {word}: want one of {', '.join(LIMITED)}, as in ttft:2000")
    return limits


def summarise(requests: Sequence[Measured], limits: Limits, cpu_seconds: float) -> Summary:
    good = [request for request in requests if request.error is None]
    began = min((request.sent_s for request in requests), default=0.0)
    ended = max((request.sent_s + request.end_to_end_s for request in requests), default=0.0)
    seconds = max(ended - began, 1e-9)
    prompt = sum(request.prompt_tokens for request in good)
    output = sum(request.output_tokens for request in good)
    within = [request for request in good if _meets(request, limits)]
    return Summary(
        completed=len(good),
        failed=len(requests) - len(good),
        seconds=seconds,
        requests_per_s=len(good) / seconds,
        output_tokens_per_s=output / seconds,
        total_tokens_per_s=(prompt + output) / seconds,
        prompt_tokens=prompt,
        cached_tokens=sum(request.cached_tokens for request in good),
        output_tokens=output,
        ttft_ms=_spread([request.first_token_s for request in good]),
        tpot_ms=_spread([request.per_output_token_s for request in good]),
        itl_ms=_spread([gap for request in good for gap in request.gaps_s]),
        e2e_ms=_spread([request.end_to_end_s for request in good]),
        good_requests_per_s=len(within) / seconds if limits else None,
        lag_p99_ms=float(np.percentile([r.lag_s * 1000 for r in requests], 99))
        if requests
        else 0.0,
        client_cpu_share=cpu_seconds / seconds,
    )


def _meets(request: Measured, limits: Limits) -> bool:
    seen = {
        "ttft": request.first_token_s,
        "tpot": request.per_output_token_s,
        "e2e": request.end_to_end_s,
    }
    return all((seen[name] or 0.0) * 1000 <= limit for name, limit in limits.items())


def _spread(seconds: Sequence[float | None]) -> Spread | None:
    values = [value * 1000 for value in seconds if value is not None]
    if not values:
        return None
    p50, p90, p95, p99 = map(float, np.percentile(values, (50, 90, 95, 99)))
    return Spread(float(np.mean(values)), p50, p90, p95, p99, max(values))
