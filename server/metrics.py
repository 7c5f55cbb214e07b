"""What Prometheus scrapes: the engine's last report, and what the API process counts itself.

Each process owns its series, so nothing is global and tests do not see each other; on a board that
several API processes have in common, the page of any of them holds the sums of all. Labels hold
numbers and fixed words only, never anything that a client sent. A scrape reads numbers that are
there already: it asks nobody. docs/operations.md says what each series is good for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Protocol

from server import __version__
from server.board import Board
from server.buckets import FIRST_TOKEN_S, PHASE_S, REQUEST_S, REQUEST_TOKENS, STEP_S, STEP_TOKENS
from server.messages import FinishReason, Gauges, Ready, StepReport
from server.series import Counter, Histogram, Info, Reading, Series, labels
from server.vllm_names import ALIASES

GAUGES: Mapping[str, str] = {
    "requests_running": "Requests that the engine is working on.",
    "requests_waiting": "Requests that wait for room in the engine.",
    "kv_blocks_used": "Blocks of the KV cache that running requests hold.",
    "kv_blocks": "Blocks of the KV cache.",
    "image_slots_used": "Picture embeddings on the device.",
    "prompt_budget": "Prompt tokens that a step may hold beside those that decode.",
}
COUNTERS: Mapping[str, str] = {
    "prompt_tokens": "Prompt tokens of requests that were started.",
    "cached_tokens": "Prompt tokens whose KV came from the prefix cache.",
    "generated_tokens": "Tokens generated.",
    "images_encoded": "Pictures that went through the vision tower.",
    "images_cached": "Pictures whose embeddings were still on the device.",
    "preemptions": "Requests that were set back to free KV blocks.",
    "cancellations": "Requests that were given up before their end.",
    "steps": "Steps of the engine.",
    "guessed_tokens": "Tokens that were guessed ahead, with --speculate.",
    "confirmed_tokens": "Guessed tokens that were right.",
}
NO_REPORT = Gauges()
"""What stands for one while no engine has said anything; in a real one there are blocks."""


class EngineView(Protocol):
    """What the API process knows of the engine without asking it."""

    @property
    def latest(self) -> Gauges:
        """`NO_REPORT` while there is none."""

    @property
    def ready(self) -> Ready | None:
        """None while there is no engine."""

    @property
    def restarts(self) -> int: ...


class ApiMetrics:
    """The series of an API process.

    Args:
        aliased_for: the name of the model, to list vLLM's names beside ours.
        board: what API processes count together; None for one that is alone.
    """

    def __init__(
        self, engine: EngineView, aliased_for: str | None = None, board: Board | None = None
    ) -> None:
        self._engine = engine
        counter, histogram = partial(Counter, board=board), partial(Histogram, board=board)

        # Counters.
        self.responses = counter(
            "internvl_http_responses_total",
            "HTTP responses by status code; 499 is a client that went away.",
            "code",
        )
        self.errors = counter(
            "internvl_request_errors_total",
            "Requests for answers that failed, by error code.",
            "code",
        )
        self.refused = counter(
            "internvl_requests_refused_total",
            "Requests for answers that were turned away before any work, by reason.",
            "reason",
        )
        self.finished = counter(
            "internvl_requests_finished_total",
            "Choices that the engine ended, by reason.",
            "finished_reason",
            known=[reason.value for reason in FinishReason],
        )
        self.image_tokens = counter(
            "internvl_image_tokens_total",
            "Prompt tokens that stand for pictures, of requests that ended.",
        )

        # Of requests.
        self.time_to_first_token = histogram(
            "internvl_time_to_first_token_seconds",
            "From the first byte of a request to its first token.",
            FIRST_TOKEN_S,
        )
        self.inter_token_latency = histogram(
            "internvl_inter_token_latency_seconds",
            "Between two tokens of a choice.",
            STEP_S,
        )
        self.time_per_output_token = histogram(
            "internvl_time_per_output_token_seconds",
            "Mean of a request: from its first token to its last, by the tokens after the first.",
            STEP_S,
        )
        self.request_seconds = histogram(
            "internvl_request_seconds",
            "From the first byte of a request to the end of its answer.",
            REQUEST_S,
        )
        self.prepare_seconds = histogram(
            "internvl_prepare_seconds",
            "Checking a request, decoding its pictures and tokenising it.",
            PHASE_S,
        )
        self.picture_decode_seconds = histogram(
            "internvl_picture_decode_seconds",
            "From a picture's file to its pixels.",
            PHASE_S,
        )
        self.queue_seconds = histogram(
            "internvl_queue_seconds",
            "From a request's arrival in the engine to its first step.",
            PHASE_S,
        )
        self.prefill_seconds = histogram(
            "internvl_prefill_seconds",
            "From a request's first step to its first token.",
            PHASE_S,
        )
        self.decode_seconds = histogram(
            "internvl_decode_seconds",
            "From a request's first token to its last.",
            REQUEST_S,
        )
        self.request_prompt_tokens = histogram(
            "internvl_request_prompt_tokens",
            "Prompt tokens of a request that ended, as its usage says.",
            REQUEST_TOKENS,
        )
        self.request_output_tokens = histogram(
            "internvl_request_output_tokens",
            "Tokens answered to a request that ended, as its usage says.",
            REQUEST_TOKENS,
        )

        # Of steps.
        self.step_seconds = histogram(
            "internvl_step_seconds",
            "How long a step kept the device: since its launch or the end of the step before.",
            STEP_S,
        )
        self.step_tokens = histogram(
            "internvl_step_tokens",
            "Positions that a step computed.",
            STEP_TOKENS,
        )
        self.encode_seconds = histogram(
            "internvl_encode_seconds",
            "How long the vision tower took for the pictures of a step.",
            PHASE_S,
        )

        counted = [one for one in vars(self).values() if isinstance(one, Counter | Histogram)]
        self._series: list[Series] = [*_of_engine(engine), *counted]
        self._aliased_for = aliased_for

    def count_response(self, status: int) -> None:
        self.responses.increase(str(status))

    def observe_step(self, step: StepReport) -> None:
        self.step_seconds.observe(step.seconds)
        self.step_tokens.observe(step.tokens)
        if step.encode_seconds:
            self.encode_seconds.observe(step.encode_seconds)

    def render(self) -> bytes:
        """Prometheus' text format."""
        text = "".join(one.render(one.name) for one in self._series)
        if self._aliased_for is not None:
            text += self._render_aliases(labels({"model_name": self._aliased_for}))
        return text.encode()

    def _render_aliases(self, constant: str) -> str:
        return "".join(
            one.render(alias, constant)
            for one in self._series
            for alias in ALIASES.get(one.name, ())
        )


def _of_engine(engine: EngineView) -> Iterator[Series]:
    """What the engine has said last."""
    for field, text in GAUGES.items():
        yield Reading(f"internvl_{field}", text, "gauge", _gauge(engine, field))
    for field, text in COUNTERS.items():
        total = f"{field}_total"
        yield Reading(f"internvl_{total}", text, "counter", _counter(engine, total))
    yield Reading(
        "internvl_kv_cache_usage_ratio",
        "Share of the KV cache that running requests hold, from 0 to 1.",
        "gauge",
        lambda: engine.latest.kv_blocks_used / max(1, engine.latest.kv_blocks),
    )
    yield Reading(
        "internvl_request_slots",
        "Requests that can run at once.",
        "gauge",
        lambda: engine.ready.max_num_seqs if engine.ready else 0,
    )
    yield Reading(
        "internvl_engine_ready",
        "1 while the engine takes requests.",
        "gauge",
        lambda: int(engine.ready is not None),
    )
    yield Reading(
        "internvl_restarts_total",
        "Processes of this daemon that ended and were started again.",
        "counter",
        lambda: engine.restarts,
    )
    yield Reading(
        "internvl_weights_load_seconds",
        "How long the last start of the engine read weights.",
        "gauge",
        lambda: engine.ready.weights_load_s if engine.ready else 0.0,
    )
    yield Info(
        "internvl_cache_config_info",
        "The KV cache: tokens in a block, and blocks.",
        lambda: _cache_config(engine.ready),
    )
    yield Info("internvl_build_info", "What serves.", lambda: {"version": __version__})


def _gauge(engine: EngineView, field: str) -> Callable[[], float]:
    return lambda: float(getattr(engine.latest, field))


def _counter(engine: EngineView, field: str) -> Callable[[], float | None]:
    """None without a report: after a zero, all that the engine has ever counted would be taken for
    an increase."""
    return lambda: None if engine.latest == NO_REPORT else float(getattr(engine.latest, field))


def _cache_config(ready: Ready | None) -> Mapping[str, object]:
    if ready is None:
        return {}
    return {"block_size": ready.kv_block_size, "num_gpu_blocks": ready.kv_blocks}
