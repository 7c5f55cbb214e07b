"""Prints docs/settings.md from the settings themselves."""

from __future__ import annotations

from pydantic.fields import FieldInfo

from server.cli import flagged_fields
from server.limits import Limits
from server.settings import ENV_PREFIX, Settings

FLAGGED = dict(flagged_fields())

HEAD = """# Settings

Every setting is a flag of `internvl-serve serve` and an environment variable; a flag wins. Switches
have a `--no-` form, lists are repeated flags or one variable with commas. In a list, blanks around
an entry and empty entries do not count; one that is given and has no others is refused.
"""
LIMITS = """
## Limits

What a client may send and how long it may take. Each limit is named in the error that it causes.
"""
TABLE = """
| flag | variable | default | meaning |
| --- | --- | --- | --- |
"""


def row(name: str, field: FieldInfo) -> str:
    default = "" if field.default in (None, ()) else f"`{field.default}`"
    flag = f"`--{name.replace('_', '-')}`" if name in FLAGGED else ""
    variable = f"{ENV_PREFIX}{name.upper()}"
    return f"| {flag} | `{variable}` | {default} | {field.description} |\n"


def page() -> str:
    fields = Settings.model_fields.items()
    choices = [row(name, field) for name, field in fields if name not in Limits.model_fields]
    limits = [row(name, field) for name, field in Limits.model_fields.items()]
    return "".join([HEAD, TABLE, *choices, LIMITS, TABLE, *limits])


if __name__ == "__main__":
    print(page(), end="")
