"""Constrained answers of a model that knows nothing: all of them must match, at any temperature."""

from __future__ import annotations

import json
import os
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.e2e.daemon import MODEL, Daemon

GENERATIONS = int(os.environ.get("STORM_GENERATIONS", "240"))
"""`make test-storm` makes 2,000."""
CONCURRENCY = 16

PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


def object_of(additional: bool = False, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": additional,
    }


def array_of(items: Any, least: int = 0, most: int = 4) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": least, "maxItems": most}


SCALARS: list[dict[str, Any]] = [
    {"type": "integer", "minimum": -50, "maximum": 50},
    {"type": "integer", "minimum": 0, "maximum": 9999},
    {"type": "boolean"},
    {"type": "null"},
    {"enum": ["red", "green", "blue"]},
    {"enum": [1, 2, 3, "four", None, True]},
    {"const": "only this"},
    {"enum": ["红色", "蓝色", "🙂", "naïve", 'a"b', "back\\slash", "new\nline"]},
    {"type": "string", "maxLength": 10},
    {"type": "string", "minLength": 2, "maxLength": 5},
    {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"},
    {"type": "string", "pattern": "^(cat|dog)s?$"},
    {"type": ["integer", "null"], "minimum": 0, "maximum": 9},
    {"anyOf": [{"type": "boolean"}, {"enum": ["unknown"]}]},
]
SCHEMAS: list[dict[str, Any]] = [
    *(object_of(value=scalar) for scalar in SCALARS),
    *(array_of(scalar, least=1) for scalar in SCALARS[:8]),
    PERSON,
    array_of(PERSON, most=3),
    object_of(people=array_of(PERSON, most=2), count={"type": "integer", "maximum": 99}),
    object_of(a=object_of(b=object_of(c=object_of(d={"enum": [1, 2]})))),
    object_of(box=array_of({"type": "integer", "minimum": 0, "maximum": 999}, 4, 4)),
    object_of(shape={"enum": ["circle", "square"]}, colour={"enum": ["red", "blue"]}),
    object_of(
        title={"type": "string", "maxLength": 20}, tags=array_of({"enum": ["x", "y", "z"]}, 1, 3)
    ),
    {"anyOf": [PERSON, object_of(error={"type": "string", "maxLength": 8})]},
    {"anyOf": [array_of({"type": "boolean"}, 1, 2), {"type": "null"}]},
    {
        "type": "object",
        "properties": {"a": {"type": "integer", "maximum": 9}, "b": {"type": "boolean"}},
        "required": ["b"],
        "additionalProperties": False,
    },
    {
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "value": {"enum": [0, 1]},
                    "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                },
                "required": ["value", "next"],
                "additionalProperties": False,
            }
        },
        "$ref": "#/$defs/node",
    },
    {
        "$defs": {"colour": {"enum": ["red", "green"]}},
        **object_of(one={"$ref": "#/$defs/colour"}, two={"$ref": "#/$defs/colour"}),
    },
    object_of(名={"enum": ["红", "绿"]}, 数={"type": "integer", "minimum": 1, "maximum": 6}),
    object_of(date={"type": "string", "format": "date"}),
    object_of(ids=array_of({"type": "string", "pattern": "^[a-f0-9]{4}$"}, 1, 3)),
    object_of(ratio={"type": "number", "minimum": 0, "maximum": 1}),
    object_of(matrix=array_of(array_of({"enum": [0, 1]}, 2, 2), 2, 2)),
    array_of(array_of({"type": "boolean"}, 1, 2), 1, 2),
]


def generate(daemon: Daemon, schema: dict[str, Any], seed: int) -> dict[str, Any]:
    answer = daemon.chat(
        model=MODEL,
        messages=[{"role": "user", "content": f"Item {seed % 7}, in JSON."}],
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        max_tokens=700,
        temperature=(0.0, 0.7, 1.0, 1.5)[seed % 4],
        seed=seed,
    )
    (choice,) = answer["choices"]
    return {"reason": choice["finish_reason"], "text": choice["message"]["content"]}


def test_there_are_forty() -> None:
    assert len(SCHEMAS) == 40
    for schema in SCHEMAS:
        Draft202012Validator.check_schema(schema)


@pytest.mark.timeout(600)
def test_every_answer_matches_its_schema(daemon: Daemon) -> None:
    chance = random.Random(0)
    jobs = [(SCHEMAS[i % len(SCHEMAS)], i) for i in range(GENERATIONS)]
    chance.shuffle(jobs)
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        answers = list(pool.map(lambda job: generate(daemon, *job), jobs))
    cut = 0
    for (schema, _), answer in zip(jobs, answers, strict=True):
        if answer["reason"] == "length":
            cut += 1  # a list without end is the model's fault, not the grammar's
            continue
        Draft202012Validator(schema).validate(json.loads(answer["text"]))
    assert cut <= GENERATIONS // 50
    daemon.wait_until_idle()
