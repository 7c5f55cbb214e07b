"""A decoded body as one of the request models, or OpenAI's error about the first wrong field.

What `validation` does for chat requests beyond types, the other endpoints do themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from server.api.explain import explain
from server.api.validation import model_not_found

Fields = TypeVar("Fields", bound=BaseModel)


def read_fields(kind: type[Fields], body: Mapping[str, Any]) -> Fields:
    """Raises:
    ApiError: 400 that names the field.
    """
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise explain(error) from None


def documented(kind: type[BaseModel]) -> dict[str, Any]:
    """What OpenAPI says of a route that reads a body of this kind itself."""
    schema = {"$ref": f"#/components/schemas/{kind.__name__}"}
    body = {"required": True, "content": {"application/json": {"schema": schema}}}
    return {"requestBody": body}


def check_model(name: str | None, names: Sequence[str]) -> None:
    """Raises:
    ApiError: 404; the model is not served here.
    """
    if name is not None and name not in names:
        raise model_not_found(name)
