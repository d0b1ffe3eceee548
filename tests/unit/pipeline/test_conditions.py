from typing import Any

import pytest

from services.pipeline.conditions import holds
from services.pipeline.errors import ConditionError

CONTEXT: dict[str, Any] = {
    "params": {"zero": 0, "no": False, "yes": True, "none": None, "text": "x", "blank": "", "list": [], "object": {}},
    "steps": {"clock": {"datetime": "2026-03-01T07:00:00"}},
}


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        ("params.yes", True),
        ("params.zero", True),
        ("params.text", True),
        ("params.no", False),
        ("params.none", False),
        ("params.blank", False),
        ("params.list", False),
        ("params.object", False),
        ("steps.skipped.value", False),
        ("steps.skipped", False),
        ("!steps.skipped", True),
        ("!params.yes", False),
        ("!steps.clock.datetime", False),
        ("params.text == 'x' && params.zero < `1`", True),
        ("params.text < `1`", False),
        ("steps.clock.datetime[11:13] == '07'", True),
    ],
)
def test_truth_is_as_in_jmespath_and_what_is_missing_is_false(text: str, truth: bool) -> None:
    assert holds(text, CONTEXT) is truth


@pytest.mark.parametrize("text", ["", "a ==", "${params.yes}", "length(params.zero)", "nope(params)"])
def test_a_condition_that_cannot_be_evaluated_is_an_error(text: str) -> None:
    with pytest.raises(ConditionError):
        holds(text, CONTEXT)
