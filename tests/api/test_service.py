from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from server.api.client import EngineClient
from server.api.service import Service
from server.heartbeat import Heartbeat
from server.ipc import ApiEndpoint
from server.limits import Limits
from server.settings import Settings
from tests.golden import CHECKPOINT


@contextmanager
def loaded(run_dir: Path, checkpoint: Path = CHECKPOINT, **options: Any) -> Iterator[Service]:
    with closing(ApiEndpoint(run_dir, "api-0")) as endpoint, Heartbeat(run_dir) as heartbeat:
        client = EngineClient(endpoint, Limits())
        service = Service.load(Settings(**options), checkpoint, client, heartbeat)
        try:
            yield service
        finally:
            service.preparer.close()


def fingerprint(run_dir: Path, checkpoint: Path = CHECKPOINT, **options: Any) -> str:
    with loaded(run_dir, checkpoint, **options) as service:
        return service.fingerprint


def test_the_fingerprint_is_that_of_checkpoint_and_arithmetic(tmp_path: Path) -> None:
    plain = fingerprint(tmp_path)
    assert plain == fingerprint(tmp_path, port=1)
    assert plain != fingerprint(tmp_path, dtype="float32")
    other = shutil.copytree(CHECKPOINT, tmp_path / "other")
    assert plain == fingerprint(tmp_path, other)
    config = other / "config.json"
    config.write_text(config.read_text().replace('"top_k": 50', '"top_k": 51'))
    assert plain != fingerprint(tmp_path, other)


def test_names_are_those_of_the_settings(tmp_path: Path) -> None:
    with loaded(tmp_path, served_model_name=("a", "b")) as service:
        assert service.names == ("a", "b")
