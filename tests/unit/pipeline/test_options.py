"""What steps say beside their call, as it is checked."""

from typing import Any

import pytest

from services.chassis.backoff import BackoffStrategy
from services.pipeline.definition import check, parse
from services.pipeline.options import Approval, Foreach, OnError, Retry


def faults(**step: Any) -> dict[str, str]:
    payload = {"pipeline": [{"uses": "echo.test", **step}], "params": {"names": []}}
    return {problem.field.removeprefix("payload.pipeline[0]."): problem.description for problem in check(payload)}


def test_all_are_read() -> None:
    (step,) = parse(
        {
            "pipeline": [
                {
                    "uses": "echo.test",
                    "with": {"who": "${name}"},
                    "retry": {"max": 3.0, "backoff": "fixed"},
                    "on_error": "continue",
                    "foreach": {"items": "${params.names}", "as": "name", "parallel": 4},
                    "approval": {"role": "release_manager", "expires_seconds": 60},
                }
            ],
            "params": {"names": ["Ana"]},
        }
    ).steps
    assert step.retry == Retry(3, BackoffStrategy.FIXED)
    assert step.on_error is OnError.CONTINUE
    assert step.foreach == Foreach("${params.names}", "name", 4)
    assert step.approval == Approval("release_manager", 60)


def test_what_is_left_out_has_a_default() -> None:
    step = {"uses": "echo.test", "retry": {"max": 0}, "foreach": {"items": []}, "approval": {}}
    (read, plain) = parse({"pipeline": [step, {"uses": "echo.test"}]}).steps
    assert read.retry == Retry(0, BackoffStrategy.EXPONENTIAL_JITTER)
    assert read.foreach == Foreach([], "item", 1)
    assert read.approval == Approval("", 86_400)
    assert (plain.retry, plain.on_error, plain.foreach, plain.approval) == (None, OnError.FAIL, None, None)


@pytest.mark.parametrize(
    ("step", "field", "fault"),
    [
        ({"retry": 3}, "retry", "must be an object with max, backoff"),
        ({"retry": {}}, "retry.max", "is required: how often the step is tried again, 0 to 10"),
        ({"retry": {"max": 11}}, "retry.max", "must be a whole number, 0 to 10"),
        ({"retry": {"max": True}}, "retry.max", "must be a whole number, 0 to 10"),
        ({"retry": {"max": 1.5}}, "retry.max", "must be a whole number, 0 to 10"),
        (
            {"retry": {"max": 1, "backoff": ["fixed"]}},
            "retry.backoff",
            "must be one of exponential_jitter, linear, fixed",
        ),
        ({"retry": {"max": 1, "delay": 2}}, "retry.delay", "is unknown; known are max, backoff"),
        ({"on_error": "ignore"}, "on_error", "must be one of fail, continue"),
        ({"on_error": None}, "on_error", "must be one of fail, continue"),
        ({"foreach": ["a"]}, "foreach", "must be an object with items, as, parallel"),
        ({"foreach": {}}, "foreach.items", "is required: a list, or a template of one, such as ${params.names}"),
        (
            {"foreach": {"items": "names"}},
            "foreach.items",
            "must be a list, or a template of one, such as ${params.names}",
        ),
        ({"foreach": {"items": [0] * 10_001}}, "foreach.items", "has 10001 items, at most 10000"),
        (
            {"foreach": {"items": "${params.name}"}},
            "foreach.items",
            "params.name is not in payload.params, which has names",
        ),
        ({"foreach": {"items": ["${1 +"]}}, "foreach.items[0]", '"${1 +" is not closed'),
        (
            {"foreach": {"items": [], "as": "params"}},
            "foreach.as",
            "must not be 'params', which is something else in templates",
        ),
        ({"foreach": {"items": [], "parallel": 0}}, "foreach.parallel", "must be a whole number, 1 to 100"),
        ({"approval": {"role": "x" * 51}}, "approval.role", "must be text of at most 50 characters"),
        ({"approval": {"expires_seconds": 0}}, "approval.expires_seconds", "must be a whole number, 1 to 2592000"),
    ],
)
def test_faults_are_named(step: dict[str, Any], field: str, fault: str) -> None:
    found = faults(**step)
    assert list(found) == [field]
    assert found[field].startswith(fault)


@pytest.mark.parametrize(
    ("step", "field"),
    [
        ({"if": "item", "foreach": {"items": []}}, "if"),
        ({"foreach": {"items": "${item}"}}, "foreach.items"),
        ({"with": {"a": "${item}"}}, "with.a"),
        ({"with": {"a": "${item}"}, "foreach": {"items": [], "as": "name"}}, "with.a"),
    ],
)
def test_an_item_is_only_where_there_is_one(step: dict[str, Any], field: str) -> None:
    assert faults(**step) == {
        field: "item is there only in `with` of a step with foreach, under the name that its `as` says"
    }
