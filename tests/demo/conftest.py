from __future__ import annotations

import pytest

from server.frontend.tokenizer import Tokenizer
from server.model.spec import ModelSpec
from tests.demo.support import write_small_folder


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelSpec, Tokenizer]:
    """Sizes and tokenizer of a small demo model."""
    return write_small_folder(tmp_path_factory.mktemp("small"))
