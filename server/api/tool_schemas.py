"""Request fields about tools and about the form of the answer."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from server.api.schema_base import Model, expected

TOOL_NAME = r"^[A-Za-z0-9_-]{1,64}$"
TOOLS_MAX = 128
CHOICES_MAX = 1000


class Function(Model):
    name: str = Field(pattern=TOOL_NAME)
    description: str | None = None
    parameters: dict[str, Any] | None = Field(
        None, description="JSON schema of the arguments. Default: an object without properties."
    )
    strict: bool | None = Field(None, description="Arguments are always held to the schema.")


class Tool(Model):
    type: str
    function: Function | None = None


class NamedFunction(Model):
    name: str = Field(pattern=TOOL_NAME)


class ToolReference(Model):
    type: str
    function: NamedFunction | None = None


class AllowedTools(Model):
    mode: Literal["auto", "required"]
    tools: Annotated[list[ToolReference], Field(fail_fast=True, min_length=1, max_length=TOOLS_MAX)]


class ToolChoice(Model):
    """`mode` stands for the words `none`, `auto` and `required`."""

    type: str
    function: NamedFunction | None = None
    allowed_tools: AllowedTools | None = None


MODES = ("none", "auto", "required")


def _word_as_object(value: Any) -> Any:
    if isinstance(value, str):
        if value not in MODES:
            raise expected("'none', 'auto', 'required' or an object")
        return {"type": value}
    if value is not None and not isinstance(value, dict):
        raise expected("a string or an object")
    return value


AnyToolChoice = Annotated[
    ToolChoice | None,
    BeforeValidator(_word_as_object, json_schema_input_type=ToolChoice | str | None),
]


def _name_as_object(value: Any) -> Any:
    if isinstance(value, str):
        if value not in ("none", "auto"):
            raise expected("'none', 'auto' or an object")
        return {"name": value}
    if value is not None and not isinstance(value, dict):
        raise expected("a string or an object")
    return value


AnyFunctionCall = Annotated[
    NamedFunction | None,
    BeforeValidator(_name_as_object, json_schema_input_type=NamedFunction | str | None),
]
"""The deprecated `function_call`; a function cannot be called `none` or `auto`."""


class JsonSchemaFormat(Model):
    name: str = Field(pattern=TOOL_NAME)
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = Field(None, description="The schema is always enforced.")


class ResponseFormat(Model):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None
    schema_: dict[str, Any] | None = Field(
        None, alias="schema", description="With json_object: a schema (llama.cpp)."
    )


def _text_or_object(value: Any) -> Any:
    if value is not None and not isinstance(value, str | dict):
        raise expected("a string or an object")
    return value


class StructuredOutputs(Model):
    """At most one of them (vLLM)."""

    json_: Annotated[dict[str, Any] | str | None, BeforeValidator(_text_or_object)] = Field(
        None, alias="json", description="A JSON schema."
    )
    regex: str | None = None
    choice: (
        Annotated[list[str], Field(fail_fast=True, min_length=1, max_length=CHOICES_MAX)] | None
    ) = None
    grammar: str | None = Field(None, description="In Lark's notation, or llama.cpp's GBNF.")
    json_object: bool | None = None

    def by_name(self) -> dict[str, Any]:
        return {
            "json": self.json_,
            "regex": self.regex,
            "choice": self.choice,
            "grammar": self.grammar,
            "json_object": self.json_object,
        }
