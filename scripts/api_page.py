"""Prints docs/api.md with its tables of fields made anew from the tables that requests are checked
with. A table stands between `<!-- fields of PATH -->` and `<!-- end -->`."""

from __future__ import annotations

import re
from pathlib import Path

from server.api.capabilities import ENDPOINTS
from server.api.chat_parameters import CHAT
from server.api.parameters import Parameter, Support, Table

PAGE = Path(__file__).parent.parent / "docs" / "api.md"
SECTION = re.compile(r"(<!-- fields of (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
HEAD = "| field | | |\n| --- | --- | --- |\n"
WORDS = {
    Support.HONOURED: "honoured",
    Support.IGNORED: "no effect",
    Support.REFUSED: "refused",
}


def row(parameter: Parameter) -> str:
    meaning = " ".join(filter(None, (parameter.meaning, parameter.differs)))
    return f"| `{parameter.name}` | {WORDS[parameter.support]} | {meaning} |\n"


def table(rows: Table) -> str:
    """All rows of chat completions, and of another endpoint those that it does not share."""
    shared = [] if rows is CHAT else list(map(id, CHAT.rows))
    return HEAD + "".join(row(parameter) for parameter in rows.rows if id(parameter) not in shared)


def page(text: str) -> str:
    tables = {endpoint.table.path: table(endpoint.table) for endpoint in ENDPOINTS}
    return SECTION.sub(lambda found: found[1] + tables[found[2]] + found[3], text)


if __name__ == "__main__":
    print(page(PAGE.read_text(encoding="utf-8")), end="")
