"""Checking values with schemas that others wrote, some of them to do harm."""

import time
from typing import Any

import pytest

from services.pipeline.schemas import Schema, SchemaNotUsable, path


def faults(schema: dict[str, Any], value: Any) -> list[tuple[str, str]]:
    return [(path(fault, "with"), fault.message) for fault in Schema(schema).faults(value)]


def test_faults_are_found_where_they_are() -> None:
    schema = {"type": "object", "properties": {"times": {"items": {"type": "integer"}}}, "required": ["zone"]}
    assert sorted(faults(schema, {"times": [1, "two"]})) == [
        ("with", "'zone' is a required property"),
        ("with.times[1]", "'two' is not of type 'integer'"),
    ]
    worst = Schema(schema).worst_fault({"times": []})
    assert worst is not None
    assert worst.message == "'zone' is a required property"
    assert Schema(schema).worst_fault({"zone": "UTC"}) is None


@pytest.mark.parametrize("dialect", ["draft-04/schema#", "draft-06/schema#", "draft-07/schema#", "2019-09", "2020-12"])
def test_every_dialect_is_spoken(dialect: str) -> None:
    base = "http://json-schema.org/" if dialect.startswith("draft") else "https://json-schema.org/draft/"
    schema = {
        "$schema": f"{base}{dialect}{'' if dialect.startswith('draft') else '/schema'}",
        "properties": {"n": {"$ref": "#/definitions/n"}},
        "definitions": {"n": {"type": "integer"}},
    }
    assert faults(schema, {"n": "x"}) == [("with.n", "'x' is not of type 'integer'")]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"properties": []},
        # Without its patterns this one would refuse what is valid.
        {"patternProperties": {"^x": {}}, "additionalProperties": False},
        {"not": {"properties": {"a": {"pattern": "b"}}}},
    ],
)
def test_a_schema_that_cannot_be_used_is_told(schema: dict[str, Any]) -> None:
    with pytest.raises(SchemaNotUsable):
        Schema(schema)


def bomb(**also: str) -> dict[str, Any]:
    """Forty parts, each of which is twice the next."""
    parts = {f"a{n}": {**also, "allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(40)}
    return {"$ref": "#/$defs/a0", "$defs": parts}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"$ref": "#"}, {}),
        ({"$ref": "#/nowhere"}, {}),
        ({"$ref": "http://127.0.0.1:9/schema.json"}, {}),
        (bomb(), {}),
        # Told in the words of another dialect, it is no less work.
        (bomb(**{"$schema": "https://json-schema.org/draft/2020-12/schema"}), {}),
        ({"items": {"enum": list(range(1000))}}, [{"n": n} for n in range(10_000)]),
        ({"anyOf": [{"type": "string"}] * 1500}, [{"n": n} for n in range(100_000)]),
        ({"anyOf": [{"type": "string"}] * 50_000}, 1),
        ({"anyOf": [[[[[]]]]] * 50_000}, 1),
    ],
    ids=["itself", "nowhere", "elsewhere", "bomb", "bomb of dialects", "enum", "messages", "large", "nonsense"],
)
def test_no_schema_keeps_anybody_busy(schema: dict[str, Any], value: Any) -> None:
    begun = time.process_time()
    with pytest.raises(SchemaNotUsable):
        list(Schema(schema).faults(value))
    assert time.process_time() - begun < 5


def test_regular_expressions_are_left_to_the_server() -> None:
    assert faults({"properties": {"a": {"pattern": "^(a+)+$"}}}, {"a": "a" * 100 + "b"}) == []


def test_items_that_are_the_same_are_found_without_comparing_each_with_each() -> None:
    schema = {"uniqueItems": True}
    assert faults(schema, [{"a": n} for n in range(20_000)]) == []
    assert faults(schema, [1, True, "1", {"a": 1, "b": 2}]) == []
    assert faults(schema, [{"a": 1, "b": 2}, {"b": 2, "a": 1}]) == [("with", "has items that are the same")]
