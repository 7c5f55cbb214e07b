"""What all request models share: nothing is coerced, and null means absent for optional fields.

A number in a string is an error, an integer is a number. Unknown keys are kept for `validation` to
judge. What may be written in two ways is brought into the longer form first, so that an error's
path is the client's own.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic_core import PydanticCustomError, PydanticKnownError

INT64_MAX = 2**63 - 1
INT32_MAX = 2**31 - 1


class Model(BaseModel):
    """Base of every request model."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False, frozen=True)


def expected(what: str) -> PydanticCustomError:
    """The objection to a value of a type that `what` does not name."""
    return PydanticCustomError("expected", "{what}", {"what": what})


def at_most(entries: int) -> BeforeValidator:
    """Refuses a larger object before any of its entries is looked at: pydantic would object to each
    of them."""

    def check(value: Any) -> Any:
        if isinstance(value, dict) and len(value) > entries:
            context = {"field_type": "Object", "max_length": entries, "actual_length": len(value)}
            raise PydanticKnownError("too_long", context)
        return value

    return BeforeValidator(check)


def string_as_list(value: Any) -> Any:
    """A lone string where a list of strings may stand."""
    if isinstance(value, str):
        return [value]
    if value is not None and not isinstance(value, list):
        raise expected("a string or an array of strings")
    return value
