from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from server.errors import MESSAGE_CHARS_MAX, ApiError
from server.frontend.grammar import json_schema_grammar
from server.frontend.grammar_check import GrammarChecker
from server.frontend.schema_check import UNSUPPORTED, check_schema, costliest


def rejection(schema: Any) -> str:
    with pytest.raises(ApiError) as caught:
        check_schema(schema, "here")
    assert (caught.value.status, caught.value.code) == (400, "invalid_schema")
    assert caught.value.param == "here"
    assert len(caught.value.message) < MESSAGE_CHARS_MAX
    return caught.value.message


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize("keyword", UNSUPPORTED)
def test_keywords_that_a_grammar_cannot_hold(keyword: str) -> None:
    schema = {"type": "object", "properties": {"a/b~": {keyword: {}}}}
    assert f"'{keyword}' at '#/properties/a~1b~0' is not supported" in rejection(schema)


@pytest.mark.parametrize(
    ("schema", "keyword", "pointer"),
    [
        (nested(33), "nesting", "#/items/items"),
        ({"anyOf": [{}] * 5001}, "size", "#/anyOf/"),
        ({"items": {"anyOf": [True] * 5001}}, "size", "#/items/anyOf/"),
        ({"properties": {str(i): True for i in range(1001)}}, "properties", "#"),
        ({"enum": list(range(1001))}, "enum", "#"),
        ({"enum": "ab"}, "enum", "#"),
        ({"items": {"pattern": "a" * 513}}, "pattern", "#/items"),
        ({"pattern": 5}, "pattern", "#"),
        ({"patternProperties": {"a" * 513: True}}, "patternProperties", "#"),
        ({"patternProperties": {str(i): True for i in range(65)}}, "patternProperties", "#"),
        ({"maxItems": 1001}, "maxItems", "#"),
        ({"minLength": -1}, "minLength", "#"),
        ({"minItems": True}, "minItems", "#"),
        ({"format": "colour"}, "format", "#"),
        ({"$ref": "https://example.com/schema"}, "$ref", "#"),
        ({"$ref": 5}, "$ref", "#"),
        ({"$defs": {"a": {"$ref": "file:///etc/passwd"}}}, "$ref", "#/$defs/a"),
        ({"$ref": "#/$defs/b", "$defs": {"a": {}}}, "$ref", "#"),
        ({"items": {"$ref": "#/prefixItems/1"}, "prefixItems": [{}]}, "$ref", "#/items"),
        ({"properties": []}, "properties", "#"),
        ({"items": {"type": "text"}}, "type", "#/items"),
        ({"type": ["null", {}]}, "type", "#"),
        ({"properties": {"a": {"required": True}}}, "required", "#/properties/a"),
        ({"required": [5]}, "required", "#"),
        ({"minimum": "1"}, "minimum", "#"),
        ({"maximum": True}, "maximum", "#"),
        ({"multipleOf": 0}, "multipleOf", "#"),
        ({"properties": 5}, "properties", "#"),
        ({"anyOf": [{}], "$ref": "#/anyOf/" + "0" * 5000}, "$ref", "#"),
        ({"allOf": 5}, "allOf", "#"),
        ({"anyOf": {}}, "anyOf", "#"),
        ({"prefixItems": [True, 5]}, "schema", "#/prefixItems/1"),
    ],
)
def test_objections_name_keyword_and_pointer(
    schema: dict[str, Any], keyword: str, pointer: str
) -> None:
    message = rejection(schema)
    assert message.startswith(f"Invalid schema: '{keyword}' at '{pointer}")


@pytest.mark.parametrize(
    "join",
    [
        {"allOf": [{"pattern": f"a*b{i}?"} for i in range(11)]},
        {
            "$ref": "#/$defs/11",
            "$defs": {
                str(i): {"$ref": f"#/$defs/{i - 1}", "pattern": f"a*b{i}?"} for i in range(1, 12)
            },
        },
    ],
)
def test_many_patterns_for_one_value(join: dict[str, Any]) -> None:
    assert "more than 10 beside joined schemas" in rejection(join)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "multipleOf": 100_003},
        {"allOf": [{"type": "integer", "multipleOf": m} for m in (7, 11, 13, 17, 19)]},
    ],
)
def test_large_multiples(schema: dict[str, Any]) -> None:
    assert "'multipleOf'" in rejection(schema)


def test_the_costliest_keyword() -> None:
    schema = {"properties": {"a": {"enum": [1]}, "b": {"allOf": [{"pattern": "a"}]}}}
    assert costliest(schema) == ("pattern", "#/properties/b/allOf/0")
    assert costliest({"type": "string"}) is None


@pytest.mark.parametrize("walk", [costliest, lambda schema: check_schema(schema, "here")])
def test_a_long_name_is_not_copied_for_each_schema_inside(walk: Callable[[Any], object]) -> None:
    schema = {"properties": {"A" * 20_000: {"anyOf": [True] * 4000}}}
    tracemalloc.start()
    try:
        walk(schema)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_a_schema_has_as_many_schemas_as_it_may() -> None:
    check_schema({"items": {"anyOf": [True] * 4998}}, "here")
    assert "'size'" in rejection({"items": {"anyOf": [True] * 4999}})


def test_many_patterns_for_many_values_are_fine() -> None:
    properties = {str(i): {"type": "string", "pattern": f"a*b{i}?"} for i in range(100)}
    check_schema({"type": "object", "properties": properties}, "here")


def test_a_very_deep_schema_costs_nothing() -> None:
    assert "nesting" in rejection(nested(100_000))


@pytest.mark.parametrize(
    "schema",
    [
        {},
        nested(32),
        {"title": "T", "description": "d", "default": 1, "examples": [1], "x-order": 1},
        {"$defs": {"a": {"type": "string"}}, "$ref": "#/$defs/a"},
        {"$ref": "#/$defs/a~1b%20c", "$defs": {"a/b c": {"type": "string"}}},
        {"$ref": "#/prefixItems/0", "prefixItems": [{"type": "string"}]},
        {"$defs": {"a": {"$id": "a:b", "$ref": "#/$defs/c", "$defs": {"c": {}}}}, "items": False},
        {"$ref": "#here", "$defs": {"a": {"$anchor": "here", "type": "string"}}},
        {"type": "object", "properties": {"not": {"type": "string"}, "$ref": {"type": "null"}}},
        {"type": ["string", "null"], "maxLength": 1000, "format": "date-time"},
        {"enum": list(range(1000))},
        {"const": {"not": 1}},
        {"type": "object", "additionalProperties": {"type": "number", "multipleOf": 0.5}},
        {"type": "integer", "multipleOf": 100_000_000},
        {"anyOf": [{"type": "number", "multipleOf": m} for m in (0.25, 0.5, 5, 25)]},
    ],
)
def test_what_passes_can_be_built(checker: GrammarChecker, schema: dict[str, Any]) -> None:
    check_schema(schema, "here")
    checker.check(json_schema_grammar(schema, "here"), "here")
