"""Logging for every process of the daemon: one line per record, for people or as JSON.

A line is `time level process message`; with JSON it is an object, which also holds what the record
has in its `fields`. Control characters are escaped, so no client can write a line of its own; what
a client or the model wrote is never logged at all. A warning is written once, not once per request.
"""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from datetime import UTC, datetime

CONTROL_CHARACTERS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}

QUIETEST = {
    "uvicorn.error": logging.WARNING,
    "PIL": logging.INFO,
}
"""Loggers of libraries and the least severe level that they may log."""

REMEMBERED_WARNINGS = 256


class LineFormatter(logging.Formatter):
    """`time level process message`; a traceback follows on lines of its own."""

    def __init__(self, process: str) -> None:
        super().__init__(
            f"%(asctime)s.%(msecs)03d %(levelname)-7s {process} %(message)s", "%Y-%m-%d %H:%M:%S"
        )

    def formatMessage(self, record: logging.LogRecord) -> str:
        return super().formatMessage(record).translate(CONTROL_CHARACTERS)


class JsonFormatter(logging.Formatter):
    """An object on one line, with a traceback as a string in it."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class Once(logging.Filter):
    """Lets each warning through once. Errors always pass: each of them is news."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: OrderedDict[tuple[str, str], None] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno != logging.WARNING:
            return True
        key = (record.name, record.getMessage())
        known = key in self._seen
        self._seen[key] = None
        self._seen.move_to_end(key)
        if len(self._seen) > REMEMBERED_WARNINGS:
            self._seen.popitem(last=False)
        return not known


def configure(level: str, process: str = "main", form: str = "text") -> None:
    """Sends all records of at least `level` to the standard error stream.

    Args:
        level: debug, info, warning or error.
        process: what this process is called in its lines.
        form: text or json.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter(process) if form == "json" else LineFormatter(process))
    handler.addFilter(Once())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    for name, quietest in QUIETEST.items():
        logging.getLogger(name).setLevel(max(quietest, logging.getLogger().level))
