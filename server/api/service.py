"""Everything the routes need, put together once."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

from server import __version__
from server.api.bodies import Bodies
from server.api.client import EngineClient
from server.api.kept_responses import KeptResponses
from server.api.keys import KeyLimits, KeyRing
from server.api.ledger import Ledger
from server.api.prepare import Preparer
from server.api.quotas import Quotas
from server.api.tracing import Tracer, open_tracer
from server.board import Board
from server.frontend.grammar_check import GrammarChecker
from server.frontend.tokenizer import Tokenizer
from server.heartbeat import Heartbeat
from server.metrics import ApiMetrics
from server.model.spec import ModelSpec
from server.settings import Settings


@dataclass(frozen=True, slots=True)
class Service:
    """One served checkpoint in one API process."""

    settings: Settings
    names: tuple[str, ...]
    """Names that requests may use for the model, the answering one first."""
    client: EngineClient
    metrics: ApiMetrics
    tracer: Tracer
    tokenizer: Tokenizer
    preparer: Preparer
    bodies: Bodies
    keys: KeyRing
    quotas: Quotas
    responses: KeptResponses
    heartbeat: Heartbeat
    fingerprint: str
    """OpenAI's `system_fingerprint`: changes when the same request may be answered otherwise."""
    started_at: int
    """Unix time, in seconds."""

    @classmethod
    def load(
        cls,
        settings: Settings,
        checkpoint: Path,
        client: EngineClient,
        heartbeat: Heartbeat,
        board: Board | None = None,
    ) -> Service:
        """Reads what this process needs of a checkpoint folder: no weights.

        Args:
            board: that of the API processes; None for one that is alone.

        Raises:
            CheckpointError: names what is missing or wrong.
            StartupError: traces cannot be sent, or the file of API keys cannot be used.
        """
        limits = KeyLimits(**settings.key_limits())
        spec = ModelSpec.load(checkpoint)
        tokenizer = Tokenizer.load(checkpoint)
        board = board or Board()
        aliased_for = settings.names()[0] if settings.vllm_metrics else None
        metrics = ApiMetrics(client, aliased_for, board)
        if board.own == 0:  # all processes hear of every step, and one of them counts it
            client.on_step = metrics.observe_step
        shared = settings.api_workers > 1
        ledger = Ledger(client.run_dir, settings.api_workers, board.own) if shared else None
        return cls(
            settings=settings,
            names=settings.names(),
            client=client,
            metrics=metrics,
            tracer=open_tracer(settings.otlp_endpoint, __version__),
            tokenizer=tokenizer,
            preparer=Preparer(
                settings,
                spec,
                tokenizer,
                GrammarChecker(checkpoint, settings.grammar_timeout_s),
                metrics.picture_decode_seconds.observe,
            ),
            bodies=Bodies(settings, board.tally()),
            keys=KeyRing(settings.api_keys, settings.api_key_file, limits),
            quotas=Quotas(ledger=ledger),
            responses=KeptResponses.of(settings, client.run_dir, board.own),
            heartbeat=heartbeat,
            fingerprint=_fingerprint(settings, checkpoint),
            started_at=int(time.time()),
        )

    @property
    def engine_stalled(self) -> bool:
        """The engine's loop has not turned for so long that it will hardly go on."""
        return self.heartbeat.age_s > self.settings.step_timeout_s / 2


def _fingerprint(settings: Settings, checkpoint: Path) -> str:
    """Over the version, the type of the arithmetic, and names and sizes of the checkpoint's files:
    reading tens of gigabytes of weights would delay the start by minutes."""
    files = sorted((path.name, path.stat().st_size) for path in checkpoint.iterdir())
    digest = hashlib.sha256(repr((__version__, settings.dtype, settings.device, files)).encode())
    digest.update((checkpoint / "config.json").read_bytes())
    return f"fp_{digest.hexdigest()[:12]}"
