"""What becomes of each request field: the one table behind validation, `/v1/capabilities`, the
page of docs/api.md and the conformance tests.

A field is honoured, accepted without effect and then named in `x-ignored-params`, or refused with
its path in `param`. Nothing is ignored in silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from server.errors import ApiError, invalid

NAMEABLE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
NAMED_MAX = 32


class Support(StrEnum):
    HONOURED = "honoured"
    IGNORED = "ignored"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One field of a request."""

    name: str
    """Dotted for a field inside an object."""
    support: Support
    meaning: str
    """One sentence, as the documentation prints it."""
    differs: str = ""
    """How it differs from OpenAI's field of that name."""
    neutral: tuple[Any, ...] = ()
    """Values besides null that change nothing: a refused field may have them, and an ignored one
    is not worth naming with them."""
    same_as: str = ""
    """The field that this is another name of."""

    def is_neutral(self, value: Any) -> bool:
        return value is None or any(
            value == harmless and isinstance(value, bool) == isinstance(harmless, bool)
            for harmless in self.neutral
        )


@dataclass(frozen=True, slots=True)
class Table:
    """The fields of one endpoint."""

    path: str
    rows: tuple[Parameter, ...]
    by_name: Mapping[str, Parameter] = field(init=False)

    def __post_init__(self) -> None:
        by_name = {row.name: row for row in self.rows}
        assert len(by_name) == len(self.rows), "two rows with one name"
        object.__setattr__(self, "by_name", by_name)

    def refused(self, body: Mapping[str, Any]) -> str | None:
        """Name of the first field that was sent and is refused."""
        for name, value in _fields(body):
            row = self.by_name.get(name)
            if row and row.support is Support.REFUSED and not row.is_neutral(value):
                return name
        return None

    def ignored(self, body: Mapping[str, Any]) -> list[str]:
        """Fields that were sent and have no effect, as far as a header can name them."""
        names = (name for name, value in _fields(body) if self._is_ignored(name, value))
        return [name for name in dict.fromkeys(names) if NAMEABLE.fullmatch(name)][:NAMED_MAX]

    def unknown(self, body: Mapping[str, Any]) -> str | None:
        """Name of the first field that was sent and stands in no row."""
        return next((name for name, _ in _fields(body) if name not in self.by_name), None)

    def _is_ignored(self, name: str, value: Any) -> bool:
        row = self.by_name.get(name)
        if row is None:
            return value is not None
        return row.support is Support.IGNORED and not row.is_neutral(value)

    def canonical(self, body: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        """The body with every field under its own name, and the names that were sent instead.

        Raises:
            ApiError: 400; a field was sent under two names with two values.
        """
        renamed = dict(body)
        sent: dict[str, str] = {}
        for name, value in body.items():
            row = self.by_name.get(name)
            if row is None or not row.same_as or value is None:
                continue
            del renamed[name]
            outer, _, inner = row.same_as.partition(".")
            within = renamed.get(outer) or {} if inner else renamed
            if not isinstance(within, dict):
                continue  # of a wrong type, which the model will say
            key = inner or outer
            before = within.get(key)
            if before is None:
                sent[row.same_as] = name
                renamed = {**renamed, outer: {**within, inner: value} if inner else value}
            elif before != value:
                raise _sent_twice(sent.get(row.same_as, row.same_as), name)
        return renamed, sent


def _sent_twice(one: str, other: str) -> ApiError:
    return invalid(f"'{one}' and '{other}' mean the same. Send one of them.", param=other)


OPENED = (
    "stream_options",
    "mm_processor_kwargs",
    "media_io_kwargs",
    "media_io_kwargs.video",
    "structured_outputs",
    "text",
    "output_config",
)
"""Objects whose fields stand in the table one by one."""


def _fields(body: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(name, value) of whatever was sent and is not null; fields of opened objects, of messages and
    of the parts of contents by dotted name. Of the items of a response only the contents: what else
    is in them came with a former answer."""
    for name, value in body.items():
        if value is not None:
            yield from _opened(name, value)
    for message in _objects(body.get("messages")):
        yield from _inner("messages", message)
        yield from _content_fields("messages", message)
    for item in _objects(body.get("input")):
        yield from _content_fields("input", item)


def _opened(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if name in OPENED and isinstance(value, dict):
        for key, inner in value.items():
            yield from _opened(f"{name}.{key}", inner)
    else:
        yield name, value


def _content_fields(name: str, message: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for part in _objects(message.get("content")):
        yield from _inner(f"{name}.content", part)
        for shown in ("image_url", "video_url"):
            if isinstance(inner := part.get(shown), dict):
                yield from _inner(f"{name}.content.{shown}", inner)


def _inner(name: str, fields: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((f"{name}.{key}", value) for key, value in fields.items() if value is not None)


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Those in a list; none where it is no list."""
    if isinstance(value, list):
        yield from (entry for entry in value if isinstance(entry, dict))
