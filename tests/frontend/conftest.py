from __future__ import annotations

from collections.abc import Iterator

import pytest

from server.frontend.grammar_check import GrammarChecker
from tests.golden import CHECKPOINT


@pytest.fixture(scope="session")
def checker() -> Iterator[GrammarChecker]:
    checker = GrammarChecker(CHECKPOINT, timeout_s=20)
    yield checker
    checker.close()
