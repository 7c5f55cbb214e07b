"""Logging for every process of the daemon: one line per record, readable on a terminal.

A line is `time level process message`. Control characters are escaped, so no client can write a
line of its own; what a client or the model wrote is never logged at all.
"""

from __future__ import annotations

import logging

CONTROL_CHARACTERS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}

QUIETEST = {
    "uvicorn.error": logging.WARNING,
    # At the debug level it logs every chunk, which is text of the model.
    "sse_starlette": logging.INFO,
    "PIL": logging.INFO,
}
"""Loggers of libraries and the least severe level that they may log."""


class LineFormatter(logging.Formatter):
    """`time level process message`; a traceback follows on lines of its own."""

    def __init__(self, process: str) -> None:
        super().__init__(
            f"%(asctime)s.%(msecs)03d %(levelname)-7s {process} %(message)s", "%Y-%m-%d %H:%M:%S"
        )

    def formatMessage(self, record: logging.LogRecord) -> str:
        return super().formatMessage(record).translate(CONTROL_CHARACTERS)


def configure(level: str, process: str = "main") -> None:
    """Sends all records of at least `level` to the standard error stream.

    Args:
        level: debug, info, warning or error.
        process: what this process is called in its lines.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter(process))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name, quietest in QUIETEST.items():
        logging.getLogger(name).setLevel(max(quietest, logging.getLogger().level))
