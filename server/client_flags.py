"""The flags of `ask`, `chat` and `top`; apart from the rest, so that a daemon need not load it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

URL = "http://localhost:8000"
BASE_URL = f"{URL}/v1"


def add_commands(commands: Any) -> None:
    """Adds `ask`, `chat` and `top` to the subcommands of a parser."""
    ask_command = commands.add_parser("ask", help="ask a running daemon about a picture or a video")
    ask_command.add_argument(
        "picture", nargs="?", type=Path, help="a picture or a video to ask about"
    )
    ask_command.add_argument("question", help="what to ask")
    ask_command.add_argument(
        "--json-schema", metavar="FILE", help="answer in JSON of this schema; a file, or JSON"
    )
    chat_command = commands.add_parser("chat", help="hold a conversation with a running daemon")
    for command in (ask_command, chat_command):
        command.add_argument(
            "--image", action="append", type=Path, default=[], help="one more picture; repeat it"
        )
        command.add_argument("--base-url", default=BASE_URL, help=f"of the API [{BASE_URL}]")
        command.add_argument("--model", help="its name; the first one that is listed by default")
        command.add_argument("--api-key", default="none", help="where the daemon wants one")
        command.add_argument("--temperature", type=float, default=0.0, help="0: the likeliest")
        command.add_argument("--max-tokens", type=int, help="longest answer")
    top = commands.add_parser("top", help="watch a running daemon")
    top.add_argument("--url", default=URL, help=f"of the daemon [{URL}]")
    top.add_argument("--interval", type=float, default=1.0, help="seconds between looks [1]")
    top.add_argument("--once", action="store_true", help="print one look and end")
    top.add_argument("--api-key", default="none", help="where the daemon wants one")
