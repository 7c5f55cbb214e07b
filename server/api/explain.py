"""What pydantic objects to, as OpenAI's error body says it.

The words are our own: they name the field by its path in the client's JSON, what was expected and
what came instead, and repeat of the client's values no more than a short number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from server.errors import ApiError, invalid

ECHO_CHARS_MAX = 64

TYPES = {
    "string_type": "a string",
    "int_type": "an integer",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "a boolean",
    "list_type": "an array",
    "dict_type": "an object",
    "model_type": "an object",
}

BOUNDS = {
    "greater_than": ("below_min", "above", "gt"),
    "greater_than_equal": ("below_min", "at least", "ge"),
    "less_than": ("above_max", "below", "lt"),
    "less_than_equal": ("above_max", "at most", "le"),
}


def explain(rejection: ValidationError, sent_names: Mapping[str, str] | None = None) -> ApiError:
    """OpenAI's error for the first thing pydantic objects to.

    Args:
        sent_names: by field, the other name under which the client sent it.
    """
    error = rejection.errors(include_url=False)[0]
    path = _as_sent(_path(error["loc"]), sent_names or {})
    kind, context = error["type"], error.get("ctx", {})
    if kind == "missing":
        return missing(path)
    if kind in BOUNDS:
        return _out_of_bounds(path, error["input"], kind, context)
    if kind in ("too_short", "too_long"):
        return _wrong_length(path, kind, context)
    if kind in ("string_too_short", "string_too_long"):
        return _wrong_string_length(path, kind, context)
    if kind in ("literal_error", "string_pattern_mismatch"):
        wanted = context.get("expected") or f"a text like {context['pattern']}"
        return invalid(f"Invalid value for '{path}': expected {wanted}.", param=path)
    expected = context["what"] if kind == "expected" else TYPES.get(kind, "another type")
    return invalid(
        f"Invalid type for '{path}': expected {expected}, but got {_json_type(error['input'])}.",
        param=path,
        code="invalid_type",
    )


def missing(path: str) -> ApiError:
    """OpenAI's error for a field that must be there."""
    return invalid(
        f"Missing required parameter: '{path}'.", param=path, code="missing_required_parameter"
    )


def _out_of_bounds(path: str, value: float, kind: str, context: Mapping[str, Any]) -> ApiError:
    side, words, key = BOUNDS[kind]
    number = "integer" if isinstance(value, int) and isinstance(context[key], int) else "decimal"
    return invalid(
        f"Invalid value for '{path}': expected a number {words} {_number(context[key])}, "
        f"but got {_number(value)}.",
        param=path,
        code=f"{number}_{side}_value",
    )


def _number(value: float) -> str:
    return str(int(value) if value == int(value) else value)[:ECHO_CHARS_MAX]


def _wrong_length(path: str, kind: str, context: Mapping[str, Any]) -> ApiError:
    if kind == "too_short":
        return invalid(
            f"Invalid '{path}': expected at least {_entries(context['min_length'])}.",
            param=path,
            code="array_below_min_length" if context["min_length"] > 1 else "empty_array",
        )
    return invalid(
        f"Invalid '{path}': expected at most {_entries(context['max_length'])}.",
        param=path,
        code="array_above_max_length",
    )


def _entries(count: int) -> str:
    return f"{count} {'entry' if count == 1 else 'entries'}"


def _wrong_string_length(path: str, kind: str, context: Mapping[str, Any]) -> ApiError:
    bound, words = (
        ("max_length", "at most")
        if kind == "string_too_long"
        else (
            "min_length",
            "at least",
        )
    )
    return invalid(
        f"Invalid '{path}': expected {words} {context[bound]} characters.",
        param=path,
        code="string_above_max_length" if bound == "max_length" else "empty_string",
    )


def _as_sent(path: str, sent_names: Mapping[str, str]) -> str:
    """The path with the field's name as the client wrote it."""
    for name, sent in sent_names.items():
        if path == name or path.startswith((f"{name}.", f"{name}[")):
            return sent + path.removeprefix(name)
    return path


def _path(location: tuple[int | str, ...]) -> str:
    """('messages', 0, 'role') as messages[0].role."""
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
    return path.removeprefix(".")


def _json_type(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    names = {str: "a string", int: "an integer", float: "a number", list: "an array"}
    return names.get(type(value), "an object")
