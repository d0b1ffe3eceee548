"""A step's input against its tool's schema, before anything runs."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.pipeline.inputs import MAX_PROBLEMS, input_problems
from services.pipeline.schemas import Schema

FIELD = "payload.pipeline[0].with"
CONVERT = {
    "type": "object",
    "properties": {
        "time": {"type": "string"},
        "zones": {"type": "array", "items": {"type": "string"}},
        "count": {"type": "integer", "minimum": 1},
        "mode": {"enum": ["a", "b"]},
        "where": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
    "required": ["time"],
    "additionalProperties": False,
}


def problems(with_: dict[str, Any], schema: dict[str, Any] = CONVERT) -> dict[str, str]:
    found = input_problems("time.convert", Schema(schema), with_, FIELD)
    return {problem.field.removeprefix(f"{FIELD}."): problem.description for problem in found}


@pytest.mark.parametrize(
    ("with_", "found"),
    [
        ({"time": "12:00"}, {}),
        ({}, {"time": "is required by time.convert"}),
        (
            {"time": "12:00", "tiem": 1},
            {"tiem": "is not known to time.convert; known are count, mode, time, where, zones"},
        ),
        ({"time": 12}, {"time": "12 is not of type 'string'"}),
        ({"time": "12:00", "zones": ["UTC", 1]}, {"zones[1]": "1 is not of type 'string'"}),
        ({"time": "12:00", "mode": "c"}, {"mode": "'c' is not one of ['a', 'b']"}),
        ({"time": "12:00", "where": {}}, {"where.city": "is required by time.convert"}),
        # What a template becomes may fit; what stands beside it is known.
        ({"time": "${params.t}", "mode": "${params.m}", "where": "${params.w}", "zones": "${params.z}"}, {}),
        ({"time": "${params.t}", "count": "many"}, {"count": "'many' is not of type 'integer'"}),
        ({"time": "${params.t}", "count": 0}, {"count": "0 is less than the minimum of 1"}),
        ({"zones": ["${params.z}", "UTC"]}, {"time": "is required by time.convert"}),
        ({"time": "${now}", "more": "${now}"}, {"more": problems({"time": "", "more": 1})["more"]}),
        ({"time": "${now}", "where": {"town": "${now}"}}, {"where.city": "is required by time.convert"}),
        # Text with a template in it is text.
        ({"time": "at ${now}", "mode": "a${now}"}, {}),
        ({"time": "at ${now}", "count": "${params.n} times"}, {"count": "is text, and time.convert takes integer"}),
        # And this is no template at all.
        ({"time": "$${now}", "mode": "$${now}"}, {"mode": "'${now}' is not one of ['a', 'b']"}),
    ],
)
def test_what_is_certainly_wrong_is_told(with_: dict[str, Any], found: dict[str, str]) -> None:
    assert problems(with_) == found


def test_the_documentation_says_what_is_so() -> None:
    schema = {
        "properties": {"timezone": {"type": "string"}}, "required": ["timezone"], "additionalProperties": False,
    }  # fmt: skip
    text = (Path(__file__).parents[3] / "docs" / "tools.md").read_text()
    table = text.partition("| `with`, where")[2].partition("\n\n")[0].split("\n")[2:]
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in table]
    assert len(rows) == 4
    for with_, field, fault in rows:
        found = input_problems("time.get_current_time", Schema(schema), json.loads(with_), FIELD)
        assert [(problem.field, problem.description) for problem in found] == ([(field, fault)] if field else [])


def test_what_depends_on_a_template_is_not_guessed() -> None:
    schema = {
        "properties": {"kind": {"type": "string"}},
        "if": {"properties": {"kind": {"const": "file"}}, "required": ["kind"]},
        "then": {"required": ["path"]},
        "else": {"required": ["url"]},
    }
    assert problems({"kind": "${params.kind}"}, schema) == {}
    assert problems({"kind": "file"}, schema) == {"path": "is required by time.convert"}
    choice = {"anyOf": [{"required": ["a"]}, {"properties": {"b": {"type": "integer"}}, "required": ["b"]}]}
    assert problems({"b": "${params.b}"}, choice) == {}
    assert list(problems({"c": 1}, choice)) == [FIELD]


def test_no_more_is_told_than_anybody_reads() -> None:
    assert len(problems({f"x{n}": n for n in range(1000)})) == MAX_PROBLEMS


def test_what_cannot_be_told_is_no_fault() -> None:
    assert problems({}, {"required": ["a"], "$ref": "#/nowhere"}) == {}


SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "b", "longer"])
NAMES = st.sampled_from(["a", "b", "c"])
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3))
SIMPLE = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["string", "integer", "object", "array", ["string", "null"]]),
        "enum": st.lists(SCALARS, min_size=1, max_size=3, unique_by=repr),
        "minimum": st.integers(-2, 2),
        "maxLength": st.integers(0, 4),
        "minItems": st.integers(0, 2),
        "uniqueItems": st.booleans(),
        "required": st.lists(NAMES, max_size=2, unique=True),
        "maxProperties": st.integers(0, 3),
        "additionalProperties": st.booleans(),
        "dependentRequired": st.dictionaries(NAMES, st.lists(NAMES, max_size=2, unique=True), max_size=2),
    },
)


def _combined(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(inner, min_size=1, max_size=3)
    parts = st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(NAMES, inner, max_size=3),
            "items": inner,
            "prefixItems": several,
            "contains": inner,
            "propertyNames": inner,
            "allOf": several,
            "anyOf": several,
            "oneOf": several,
            "not": inner,
            "if": inner,
            "then": inner,
            "else": inner,
            "dependentSchemas": st.dictionaries(NAMES, inner, max_size=2),
            "unevaluatedProperties": st.booleans(),
        },
    )
    return st.builds(lambda simple, combined: simple | combined, SIMPLE, parts)


SCHEMAS = st.recursive(SIMPLE, _combined, max_leaves=6)


@st.composite
def hidden(draw: st.DrawFn, value: Any) -> Any:
    """The value with some of its parts behind templates."""
    if draw(st.booleans()):
        return "${params.x}" if not isinstance(value, str) or draw(st.booleans()) else "${params.x}${params.y}"
    if isinstance(value, dict):
        return {key: draw(hidden(item)) for key, item in value.items()}
    return [draw(hidden(item)) for item in value] if isinstance(value, list) else value


@settings(max_examples=400, deadline=None)
@given(st.data(), SCHEMAS, st.dictionaries(NAMES, VALUES, max_size=3))
def test_nothing_that_could_be_valid_is_refused(data: st.DataObject, schema: dict[str, Any], value: Any) -> None:
    checked = Schema(schema)
    if not any(checked.faults(value)):
        step = {key: data.draw(hidden(item)) for key, item in value.items()}
        assert input_problems("a.tool", checked, step, FIELD) == []


def test_a_secret_will_be_text_that_nobody_knows() -> None:
    schema = Schema({"properties": {"word": {"enum": ["yes"]}, "n": {"type": "integer"}, "text": {"type": "string"}}})
    text = "Bearer ${secrets.token}"
    for shown in ("${secrets.token}", text):
        assert input_problems("a.b", schema, {"word": shown, "text": shown}, "with") == []
        (problem,) = input_problems("a.b", schema, {"n": shown}, "with")
        assert (problem.field, problem.description) == ("with.n", "is text, and a.b takes integer")
