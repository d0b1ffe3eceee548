from typing import Any

import pytest

from services.pipeline.definition import MAX_DEPTH, MAX_STEPS, check, parse
from services.pipeline.errors import ValidationFault


def faults(payload: dict[str, Any]) -> dict[str, str]:
    return {problem.field: problem.description for problem in check(payload)}


def step_faults(**step: Any) -> dict[str, str]:
    return faults({"pipeline": [{"uses": "echo.test", **step}]})


def test_a_full_pipeline_is_read() -> None:
    pipeline = parse(
        {
            "pipeline": [
                {"uses": "time.get_current_time", "with": {"timezone": "${params.zone}"}, "save_as": "clock"},
                {"id": "second", "uses": "echo.test", "if": "steps.clock", "timeout_seconds": 2.5},
            ],
            "params": {"zone": "UTC"},
        }
    )
    first, second = pipeline.steps
    assert (first.id, first.uses, first.save_as, first.timeout_seconds) == (
        "step_1",
        "time.get_current_time",
        "clock",
        None,
    )
    assert (second.id, second.with_, second.condition, second.timeout_seconds) == ("second", {}, "steps.clock", 2.5)
    assert pipeline.params == {"zone": "UTC"}


def test_a_pipeline_may_be_empty() -> None:
    assert parse({"pipeline": []}).steps == ()


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        ({}, "payload.pipeline"),
        ({"pipeline": {}}, "payload.pipeline"),
        ({"pipeline": None}, "payload.pipeline"),
        ({"pipeline": [], "params": []}, "payload.params"),
        ({"pipeline": [], "steps": []}, "payload.steps"),
        ({"pipeline": ["time.now"]}, "payload.pipeline[0]"),
        ({"pipeline": [{"uses": "a.b"}] * (MAX_STEPS + 1)}, "payload.pipeline"),
    ],
)
def test_a_payload_of_another_shape_is_refused(payload: dict[str, Any], field: str) -> None:
    assert list(faults(payload)) == [field]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("uses", "time"),
        ("uses", "Time.now"),
        ("uses", ".now"),
        ("uses", "time.now\n"),
        ("uses", 1),
        ("uses", f"time.{'x' * 129}"),
        ("id", "1st"),
        ("id", ""),
        ("id", None),
        ("id", "x" * 65),
        ("save_as", "a-b"),
        ("save_as", "x\n"),
        ("with", []),
        ("with", "text"),
        ("if", True),
        ("if", "a =="),
        ("timeout_seconds", 0),
        ("timeout_seconds", 3600.1),
        ("timeout_seconds", True),
        ("timeout_seconds", "5"),
        ("timeout_seconds", float("nan")),
    ],
)
def test_a_bad_value_is_named(key: str, value: Any) -> None:
    assert list(step_faults(**{key: value})) == [f"payload.pipeline[0].{key}"]


@pytest.mark.parametrize("key", ["max_retries", "wiht", "on_failure"])
def test_a_key_that_would_not_be_obeyed_is_refused(key: str) -> None:
    assert list(step_faults(**{key: {}})) == [f"payload.pipeline[0].{key}"]


def test_a_missing_uses_is_named() -> None:
    assert list(faults({"pipeline": [{}]})) == ["payload.pipeline[0].uses"]


def test_ids_and_saved_names_are_unique() -> None:
    found = faults({"pipeline": [{"id": "step_2", "uses": "a.b", "save_as": "x"}, {"uses": "a.b", "save_as": "x"}]})
    assert list(found) == ["payload.pipeline[1].id", "payload.pipeline[1].save_as"]


def test_every_fault_is_found_at_once_and_named_where_it_is() -> None:
    found = faults(
        {
            "pipeline": [
                {"uses": "bad", "with": {"time": "${now"}},
                {"uses": "a.b", "with": {"list": ["", {"odd key": "${steps.none}"}]}, "if": "params.none"},
            ],
            "extra": 1,
        }
    )
    assert list(found) == [
        "payload.extra",
        "payload.pipeline[0].uses",
        "payload.pipeline[0].with.time",
        "payload.pipeline[1].if",
        'payload.pipeline[1].with.list[1]["odd key"]',
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("${event.id}", "there is no event: only tasks with schedule_kind event or condition have an event"),
        ("${run.topic}", "there is no run.topic: only tasks with schedule_kind event have one"),
        ("${run.event_id}", "there is no run.event_id: only tasks with schedule_kind event have one"),
    ],
)
def test_an_event_is_read_only_where_there_is_one(text: str, fault: str) -> None:
    payload = {"pipeline": [{"uses": "echo.test", "with": {"text": text}, "if": text[2:-1]}]}
    assert check(payload) == []
    assert check(payload, has_event=True) == []
    found = check(payload, has_event=False)
    assert [problem.field for problem in found] == ["payload.pipeline[0].if", "payload.pipeline[0].with.text"]
    assert {problem.description for problem in found} == {fault}


def test_a_payload_brings_no_event_of_its_own() -> None:
    (problem,) = check({"pipeline": [], "event": {}})
    assert (problem.field, problem.description) == ("payload.event", "is unknown; known are pipeline, params")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("${item}", "item is there only in `with` of a step with foreach, under the name that its `as` says"),
        ("${secret.key}", "there is no 'secret'; expressions can read now, params, event, steps, run, task"),
        ("${now()}", "there is no function now()"),
        ("${params.other}", "params.other is not in payload.params, which has zone"),
        ("${steps.other}", "steps.other is not saved by any earlier step; the steps before saved first"),
        ("${steps.own}", "steps.own is saved only by this or a later step"),
        ("${run.number}", "run.number does not exist; run has attempt, created_at, event_id, id, topic"),
        ("${ {a: steps.other} }", "steps.other is not saved by any earlier step"),
        ("${steps.{a: other}}", "steps.other is not saved by any earlier step"),
        ("${length(steps.other)}", "steps.other is not saved by any earlier step"),
        ("${steps | other}", "steps.other is not saved by any earlier step"),
        ("${steps.first || steps.other}", "steps.other is not saved by any earlier step"),
        ("${steps.first[?@ == secrets]}", None),
        ("${steps.first.{a: b, c: d[0].e}}", None),
        ("${steps.first[].other | map(&name, @)}", None),
        ("${@.steps.first}", None),
        ("${params.zone}/${task.title}/${run.id}/${now[:4]}", None),
    ],
)
def test_references_are_checked_from_their_text(text: str, fault: str | None) -> None:
    found = faults(
        {
            "pipeline": [
                {"uses": "a.b", "save_as": "first"},
                {"uses": "a.b", "with": {"value": text}, "save_as": "own"},
            ],
            "params": {"zone": "UTC"},
        }
    )
    if fault is None:
        assert found == {}
    else:
        assert found["payload.pipeline[1].with.value"].startswith(fault)


def test_a_payload_that_is_too_deep_or_endless_is_refused() -> None:
    deep: Any = 1
    for _ in range(MAX_DEPTH):
        deep = {"a": deep}
    endless: dict[str, Any] = {"pipeline": []}
    endless["params"] = endless
    for payload in ({"pipeline": [], "params": deep}, endless):
        assert faults(payload) == {"payload": f"is nested deeper than {MAX_DEPTH} levels"}


def test_reading_a_faulty_payload_raises_all_its_problems() -> None:
    with pytest.raises(ValidationFault) as caught:
        parse({"pipeline": [{"uses": 1}, {"uses": 2}]})
    assert [problem.field for problem in caught.value.problems] == [
        "payload.pipeline[0].uses",
        "payload.pipeline[1].uses",
    ]
