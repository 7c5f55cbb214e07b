"""Refuses JSON schemas that cannot or should not become a grammar, before any is built.

A schema is walked once, without recursion in Python, and each objection names the keyword and its
JSON pointer. Ids of other documents are never fetched. What is accepted is Draft 2020-12 as far as
the grammar library knows it; unknown keywords are annotations there and here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

from server.errors import ApiError, invalid
from server.frontend.regex_size import SIZE_MAX, written_out

DEPTH_MAX = 32
NODES_MAX = 5000
POINTER_CHARS_MAX = 128
"""Of a pointer in a message. It is cut where it is made, since every schema inside has a copy."""
PROPERTIES_MAX = 1000
ENUM_MAX = 1000
PATTERN_CHARS_MAX = 512
REPEATS_MAX = 1000
JOINED_PATTERNS_MAX = 10
"""Patterns and formats in a schema that joins schemas. To find out whether any text matches several
patterns takes a time that doubles with each of them."""
MULTIPLE_MAX = 100_000
"""Digits of `multipleOf` without the decimal point; for joined schemas the least common multiple of
all. Building takes time and memory in proportion."""
NAME_PATTERNS_MAX = 64
"""Patterns of property names in a schema; each is compared with each."""

UNSUPPORTED = (
    "not",
    "if",
    "then",
    "else",
    "uniqueItems",
    "contains",
    "minContains",
    "maxContains",
    "propertyNames",
    "dependentRequired",
    "dependentSchemas",
    "dependencies",
    "unevaluatedItems",
    "unevaluatedProperties",
    "$dynamicRef",
    "$recursiveRef",
)
FORMATS = (
    "date-time",
    "time",
    "date",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "uuid",
    "uri",
)
SCHEMAS_BY_NAME = ("properties", "patternProperties", "$defs", "definitions")
LISTS_OF_SCHEMAS = ("anyOf", "oneOf", "allOf", "prefixItems")
ONE_SCHEMA = ("items", "additionalProperties", "additionalItems")
COSTLY = (
    "multipleOf",
    "patternProperties",
    "pattern",
    "format",
    "allOf",
    "anyOf",
    "oneOf",
    "enum",
    "properties",
    *ONE_SCHEMA,
)
"""Keywords by how much they can cost, the most costly first."""
TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
NUMBERS = ("minimum", "maximum", "multipleOf")
COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")


def check_schema(schema: Mapping[str, Any], param: str) -> None:
    """Raises:
    ApiError: 400 `invalid_schema` with the path of the schema in `param`.
    """
    totals, found = _Totals(), 1
    waiting: list[tuple[Any, str, int, Any]] = [(schema, "#", 0, schema)]
    while waiting:
        node, pointer, depth, document = waiting.pop()
        if depth > DEPTH_MAX:
            raise objection("nesting", pointer, f"is deeper than {DEPTH_MAX} levels", param)
        if not isinstance(node, bool | dict):
            raise objection("schema", pointer, "is neither an object nor a boolean", param)
        if isinstance(node, bool):
            continue
        if excess := totals.add(node):
            raise objection(excess[0], pointer, excess[1], param)
        _check_keywords(node, pointer, param)
        if "$id" in node:
            document = node
        if not _leads_somewhere(document, node.get("$ref", "#")):
            raise objection("$ref", pointer, "leads nowhere", param)
        for inner, path in _inner(node, pointer, param):
            found += 1
            if found > NODES_MAX:
                raise objection("size", path, f"is more than {NODES_MAX} schemas", param)
            waiting.append((inner, path, depth + 1, document))


@dataclass(slots=True)
class _Totals:
    """What has been seen of a schema so far."""

    properties: int = 0
    name_patterns: int = 0
    patterns: int = 0
    multiple: int = 1
    joined_multiple: int = 1
    joins: bool = False

    def add(self, node: Mapping[str, Any]) -> tuple[str, str] | None:
        """The keyword that there is too much of now, and how much there may be."""
        self.properties += _size(node.get("properties"))
        self.name_patterns += _size(node.get("patternProperties"))
        self.patterns += ("pattern" in node) + ("format" in node)
        multiple = _digits(node.get("multipleOf"))
        self.multiple = max(self.multiple, multiple)
        self.joined_multiple = math.lcm(self.joined_multiple, multiple)
        self.joins = self.joins or _joins(node)
        if self.properties > PROPERTIES_MAX:
            return "properties", f"are more than {PROPERTIES_MAX}"
        if self.name_patterns > NAME_PATTERNS_MAX:
            return "patternProperties", f"are more than {NAME_PATTERNS_MAX}"
        if (self.joined_multiple if self.joins else self.multiple) > MULTIPLE_MAX:
            return "multipleOf", f"is too large: its digits may be {MULTIPLE_MAX} at most"
        if self.joins and self.patterns > JOINED_PATTERNS_MAX:
            return (
                "pattern",
                f"and 'format' are more than {JOINED_PATTERNS_MAX} beside joined schemas",
            )
        return None


def costliest(schema: Any) -> tuple[str, str] | None:
    """The keyword that most likely makes a schema hard to build, and its pointer."""
    found: dict[str, str] = {}
    waiting: list[tuple[Any, str]] = [(schema, "#")]
    while waiting:
        node, pointer = waiting.pop()
        if isinstance(node, dict):
            for keyword in COSTLY:
                if keyword in node:
                    found.setdefault(keyword, pointer)
            waiting += _inner(node, pointer, "")
    return next(((keyword, found[keyword]) for keyword in COSTLY if keyword in found), None)


def objection(keyword: str, pointer: str, what: str, param: str) -> ApiError:
    return invalid(
        f"Invalid schema: '{keyword[:64]}' at '{pointer}' {what}.",
        param=param,
        code="invalid_schema",
    )


def _check_keywords(node: Mapping[str, Any], pointer: str, param: str) -> None:
    for keyword in UNSUPPORTED:
        if keyword in node:
            raise objection(keyword, pointer, "is not supported", param)
    _check_types(node, pointer, param)
    values = node.get("enum", ())
    if not isinstance(values, list | tuple) or len(values) > ENUM_MAX:
        raise objection("enum", pointer, f"is no list of at most {ENUM_MAX} values", param)
    pattern = node.get("pattern", "")
    if not isinstance(pattern, str) or len(pattern) > PATTERN_CHARS_MAX:
        raise objection("pattern", pointer, f"is longer than {PATTERN_CHARS_MAX}", param)
    if written_out(pattern) > SIZE_MAX:
        raise objection("pattern", pointer, "repeats too much", param)
    for keyword in COUNTS:
        if not _is_count(node.get(keyword, 0)):
            raise objection(keyword, pointer, f"is no integer from 0 to {REPEATS_MAX}", param)
    if "format" in node and node["format"] not in FORMATS:
        raise objection("format", pointer, f"is none of {', '.join(FORMATS)}", param)
    reference = node.get("$ref", "#")
    if not isinstance(reference, str) or not reference.startswith("#"):
        raise objection("$ref", pointer, "does not lead into this schema", param)


def _check_types(node: Mapping[str, Any], pointer: str, param: str) -> None:
    types = node.get("type", "null")
    if any(name not in TYPES for name in (types if isinstance(types, list) else [types])):
        raise objection("type", pointer, f"is none of {', '.join(TYPES)}", param)
    names = node.get("required", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise objection("required", pointer, "is no list of names", param)
    for keyword in NUMBERS:
        number = node.get(keyword, 1)
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise objection(keyword, pointer, "is no number", param)
    if node.get("multipleOf", 1) <= 0:
        raise objection("multipleOf", pointer, "is not above 0", param)


def _leads_somewhere(schema: Any, reference: str) -> bool:
    """Whether a JSON pointer leads into the schema; anchors are left to the grammar library."""
    for step in reference.split("/")[1:] if reference.startswith("#/") else ():
        name = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(schema, list) and _is_index(name) and int(name) < len(schema):
            schema = schema[int(name)]
        elif isinstance(schema, dict) and name in schema:
            schema = schema[name]
        else:
            return False
    return True


def _is_index(name: str) -> bool:
    return len(name) < 10 and name.isdecimal()


def _joins(node: Mapping[str, Any]) -> bool:
    """Whether a value must match several schemas at once."""
    applied = sum(keyword in node for keyword in ("allOf", "anyOf", "oneOf", "$ref"))
    return _size(node.get("allOf")) > 1 or applied > 1 or (applied == 1 and "pattern" in node)


def _digits(multiple: Any) -> int:
    """A positive number without its decimal point and the zeros at its end; 1 for what is none."""
    if isinstance(multiple, bool) or not isinstance(multiple, int | float) or multiple <= 0:
        return 1
    digits = Decimal(str(multiple)).normalize().as_tuple().digits
    return int("".join(map(str, digits)))


def _size(value: Any) -> int:
    return len(value) if isinstance(value, list | dict) else 0


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= REPEATS_MAX


def _inner(node: Mapping[str, Any], pointer: str, param: str) -> Iterator[tuple[Any, str]]:
    """Schemas directly inside one, with their pointers."""
    for keyword in SCHEMAS_BY_NAME:
        if keyword not in node:
            continue
        if not isinstance(node[keyword], dict):
            raise objection(keyword, pointer, "is no object", param)
        for name, inner in node[keyword].items():
            if keyword == "patternProperties" and len(name) > PATTERN_CHARS_MAX:
                raise objection(keyword, pointer, f"is longer than {PATTERN_CHARS_MAX}", param)
            if keyword == "patternProperties" and written_out(name) > SIZE_MAX:
                raise objection(keyword, pointer, "repeats too much", param)
            yield inner, _pointer(pointer, keyword, _escaped(name[:POINTER_CHARS_MAX]))
    for keyword in LISTS_OF_SCHEMAS:
        if keyword not in node:
            continue
        if not isinstance(node[keyword], list):
            raise objection(keyword, pointer, "is no list", param)
        for index, inner in enumerate(node[keyword]):
            yield inner, _pointer(pointer, keyword, index)
    for keyword in ONE_SCHEMA:
        if keyword in node:
            yield node[keyword], _pointer(pointer, keyword)


def _pointer(*steps: str | int) -> str:
    return "/".join(map(str, steps))[:POINTER_CHARS_MAX]


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
