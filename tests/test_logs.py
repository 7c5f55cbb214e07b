from __future__ import annotations

import logging
import re
from collections.abc import Iterator

import pytest

from server.logs import QUIETEST, configure


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in QUIETEST:
        logging.getLogger(name).setLevel(logging.NOTSET)


def test_a_line_has_time_level_process_and_message(capfd: pytest.CaptureFixture[str]) -> None:
    configure("info", "api-0")
    logging.getLogger("server.api").info("ready after %d s", 3)
    line = capfd.readouterr().err
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} INFO    api-0 ready after 3 s\n", line
    )


def test_a_client_cannot_write_a_line_of_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    configure("info")
    logging.warning("path %s", "/a\n2026 ERROR main \x1b[31mforged\r\x85")
    line = capfd.readouterr().err
    assert line.count("\n") == 1
    assert r"/a\x0a2026 ERROR main \x1b[31mforged\x0d\x85" in line


def test_a_traceback_stays_readable(capfd: pytest.CaptureFixture[str]) -> None:
    configure("info")
    try:
        raise ValueError("broken")
    except ValueError:
        logging.exception("failed")
    lines = capfd.readouterr().err.splitlines()
    assert lines[0].endswith(" failed")
    assert lines[1].startswith("Traceback")


def test_less_severe_messages_are_left_out(capfd: pytest.CaptureFixture[str]) -> None:
    configure("warning")
    logging.getLogger("server.api").info("quiet")
    assert capfd.readouterr().err == ""


def test_libraries_that_log_content_or_noise_stay_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    configure("debug")
    logging.getLogger("sse_starlette.sse").debug("chunk: secret")
    logging.getLogger("uvicorn.error").info("Started")
    logging.getLogger("server").debug("ours")
    text = capfd.readouterr().err
    assert "secret" not in text
    assert "Started" not in text
    assert "ours" in text
