"""Prints docs/settings.md from the settings themselves."""

from __future__ import annotations

from pydantic.fields import FieldInfo

from server.settings import ENV_PREFIX, Settings

HEAD = """# Settings

Every setting is a flag of `internvl-serve serve` and an environment variable; a flag wins. Switches
have a `--no-` form, lists are repeated flags or one variable with commas.

| flag | variable | default | meaning |
| --- | --- | --- | --- |"""


def row(name: str, field: FieldInfo) -> str:
    default = "" if field.default in (None, ()) else f"`{field.default}`"
    flag, variable = f"--{name.replace('_', '-')}", f"{ENV_PREFIX}{name.upper()}"
    return f"| `{flag}` | `{variable}` | {default} | {field.description} |"


def page() -> str:
    rows = [row(name, field) for name, field in Settings.model_fields.items()]
    return "\n".join([HEAD, *rows]) + "\n"


if __name__ == "__main__":
    print(page(), end="")
