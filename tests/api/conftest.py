"""One server and one fake engine per test module; both begin every test with nothing scripted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from server.frontend.tokenizer import Tokenizer
from tests.api.fake_engine import FakeEngine
from tests.api.harness import RunningApi
from tests.golden import CHECKPOINT


@dataclass
class Rig:
    api: RunningApi
    engine: FakeEngine


@pytest.fixture(scope="module")
def shared_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    run_dir = tmp_path_factory.mktemp("run")
    with FakeEngine(run_dir) as engine, RunningApi(run_dir, max_body_bytes=2**20) as api:
        api.wait_until_ready()
        yield Rig(api, engine)


@pytest.fixture
def rig(shared_rig: Rig) -> Rig:
    shared_rig.engine.reset()
    return shared_rig


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.load(CHECKPOINT)
