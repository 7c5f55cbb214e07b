from __future__ import annotations

import json
import logging
import re
import warnings
from collections.abc import Iterator

import pytest

from server.logs import QUIETEST, REMEMBERED_WARNINGS, configure


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
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


def test_libraries_that_log_noise_stay_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    configure("debug")
    logging.getLogger("PIL.Image").debug("noise")
    logging.getLogger("uvicorn.error").info("Started")
    logging.getLogger("server").debug("ours")
    text = capfd.readouterr().err
    assert "noise" not in text
    assert "Started" not in text
    assert "ours" in text


def test_json_is_one_object_with_the_fields_of_the_record(
    capfd: pytest.CaptureFixture[str],
) -> None:
    configure("info", "api-0", "json")
    logging.getLogger("server.access").info(
        "chat %s\nforged", "id", extra={"fields": {"status": 200, "ttft_ms": None}}
    )
    line = capfd.readouterr().err
    assert line.count("\n") == 1
    value = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", value.pop("time"))
    assert value == {
        "level": "info",
        "process": "api-0",
        "logger": "server.access",
        "message": "chat id\nforged",
        "status": 200,
        "ttft_ms": None,
    }


def test_json_holds_the_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    configure("info", "main", "json")
    try:
        raise ValueError("broken")
    except ValueError:
        logging.exception("failed")
    (line,) = capfd.readouterr().err.splitlines()
    assert "ValueError: broken" in json.loads(line)["traceback"]


def test_a_warning_is_written_once_and_an_error_always(capfd: pytest.CaptureFixture[str]) -> None:
    configure("info")
    for number in range(3):
        logging.warning("odd")
        logging.warning("odd %d", number)
        logging.error("broken")
    text = capfd.readouterr().err
    assert text.count(" odd\n") == 1
    assert text.count(" odd ") == 3
    assert text.count(" broken\n") == 3


def test_a_flood_of_warnings_is_forgotten_again(capfd: pytest.CaptureFixture[str]) -> None:
    configure("info")
    logging.warning("first")
    for number in range(REMEMBERED_WARNINGS):
        logging.warning("odd %d", number)
    logging.warning("first")
    assert capfd.readouterr().err.count(" first\n") == 2


def test_warnings_of_libraries_are_lines_too(capfd: pytest.CaptureFixture[str]) -> None:
    configure("info", "engine")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("deprecated", UserWarning, stacklevel=1)
        logging.captureWarnings(False)
    assert "WARNING engine" in capfd.readouterr().err
