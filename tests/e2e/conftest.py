from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.daemon import Daemon, running

EXACT = ("--dtype", "float32", "--image-mode", "reference")


@pytest.fixture(scope="session")
def daemon() -> Iterator[Daemon]:
    """One that computes exactly what the authors' code does; shared, so leave it as it was."""
    with running(*EXACT) as daemon:
        yield daemon
