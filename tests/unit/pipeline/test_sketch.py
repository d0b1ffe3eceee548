"""What a pipeline would do, without doing it."""

import time
from typing import Any

import pytest

from services.pipeline import canonical
from services.pipeline.sketch import MAX_RENDERED_BYTES, MAX_UNRESOLVED, StepSketch, sketch

CONTEXT = {"now": "", "params": {"n": 3, "text": "x" * 10_000}, "steps": {"clock": {"on": True}}, "run": {}, "task": {}}


def sketched(*steps: Any) -> list[StepSketch]:
    return sketch({"pipeline": list(steps)}, CONTEXT)


def test_steps_are_shown_as_far_as_they_can_be_read() -> None:
    shown = sketched(
        {"uses": 5, "with": "text", "if": 7}, "no step", {"id": ["x"], "uses": "a.b", "with": {"a": [1, None]}}
    )
    assert [(step.id, step.uses, step.with_, step.condition) for step in shown] == [
        ("step_1", "", {}, None),
        ("", "a.b", {"a": [1, None]}, None),
    ]


def test_a_fault_hides_only_itself() -> None:
    (step,) = sketched({"uses": "a.b", "with": {"bad": "${ ][ }", "missing": "${steps.x}", "good": "${params.n}"}})
    assert step.with_ == {"bad": "${ ][ }", "missing": "${steps.x}", "good": 3}
    assert [problem.field for problem in step.unresolved] == [
        "payload.pipeline[0].with.bad",
        "payload.pipeline[0].with.missing",
    ]


@pytest.mark.parametrize(
    ("condition", "truth"),
    [("params.n", True), ("steps.clock.on", True), ("steps.clock.off", False), ("!steps.clock.off", True),
     ("steps.other", None), ("params.n && !steps.other.a", None), ("][", None), ("length(params.n)", None)],
)  # fmt: skip
def test_only_what_is_known_is_told_of_a_condition(condition: str, truth: bool | None) -> None:
    (step,) = sketched({"uses": "a.b", "if": condition})
    assert step.condition is truth
    assert [problem.field for problem in step.unresolved] == (["payload.pipeline[0].if"] if truth is None else [])


@pytest.mark.parametrize("text", ["${params.text}", "${join('', [params.text, params.text])}", "${steps.x}"])
def test_much_stays_little(text: str) -> None:
    pipeline = [{"uses": "a.b", "with": {f"k{n}": text for n in range(50)}} for _ in range(1000)]
    written = sum(len(canonical.encode(step["with"])) for step in pipeline)
    began = time.process_time()
    shown = sketched(*pipeline)
    assert time.process_time() - began < 3
    assert sum(len(canonical.encode(step.with_)) for step in shown) <= written + MAX_RENDERED_BYTES
    assert sum(len(step.unresolved) for step in shown) == MAX_UNRESOLVED


def test_the_first_item_is_shown_and_all_are_counted() -> None:
    payload = {
        "pipeline": [
            {
                "uses": "echo.test",
                "foreach": {"items": "${params.names}", "as": "who"},
                "with": {"text": "Hello ${who}"},
            },
            {"uses": "echo.test", "foreach": {"items": "${steps.later}"}, "with": {"it": "${item}"}},
            {"uses": "echo.test", "foreach": {"items": []}, "with": {"it": "${item}"}},
        ],
    }
    first, unknown, none = sketch(payload, {"params": {"names": ["Ana", "Bo"]}, "steps": {}})
    assert (first.items, first.with_) == (2, {"text": "Hello Ana"})
    assert (unknown.items, unknown.with_) == (None, {"it": "${item}"})
    assert [problem.field for problem in unknown.unresolved] == [
        "payload.pipeline[1].foreach.items",
        "payload.pipeline[1].with.it",
    ]
    assert (none.items, none.with_) == (0, {"it": "${item}"})
