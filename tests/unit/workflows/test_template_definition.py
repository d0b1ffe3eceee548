"""Which definitions of a template are taken, and what is said of the others."""

from copy import deepcopy
from typing import Any

import pytest

from services.chassis.errors import InvalidArgument
from services.workflows.definition import from_document, parse
from services.workflows.models.template import State, Transition, TransitionKind

SMALL: dict[str, Any] = {
    "name": "small",
    "version": 1,
    "initial_state": "draft",
    "states": [
        {"name": "draft", "owner_role": "writer", "phase": "writing"},
        {"name": "review", "owner_role": "reader"},
        {"name": "done", "terminal": True},
    ],
    "transitions": [
        {"from_state": "draft", "to_state": "review", "kind": "forward"},
        {"from_state": "review", "to_state": "draft", "kind": "retry"},
        {"from_state": "review", "to_state": "done", "kind": "forward"},
    ],
}


def faults(document: Any) -> dict[str, str]:
    with pytest.raises(InvalidArgument) as refused:
        parse(document)
    return {violation.field: violation.description for violation in refused.value.violations}


def changed(**fields: Any) -> dict[str, Any]:
    return deepcopy(SMALL) | fields


def edge(origin: str, to: str, kind: str = "forward") -> dict[str, str]:
    return {"from_state": origin, "to_state": to, "kind": kind}


def test_a_good_definition_is_read_as_it_stands() -> None:
    definition = parse(SMALL)
    assert (definition.name, definition.version, definition.initial_state) == ("small", 1, "draft")
    assert definition.states[0] == State("draft", owner_role="writer", phase="writing")
    assert definition.states[2] == State("done", terminal=True)
    assert definition.transitions[1] == Transition("review", "draft", TransitionKind.RETRY)
    assert from_document(SMALL) == definition


@pytest.mark.parametrize("document", [None, [], "draft", 7])
def test_what_is_no_object_is_refused_as_a_whole(document: Any) -> None:
    assert list(faults(document)) == ["template"]


def test_a_missing_field_is_named() -> None:
    assert "'initial_state'" in faults({key: SMALL[key] for key in SMALL if key != "initial_state"})["template"]


def test_an_unknown_field_is_named() -> None:
    assert "'owner'" in faults(changed(owner="me"))["template"]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"version": 0}, "version"),
        ({"version": "1"}, "version"),
        ({"name": "Not a name"}, "name"),
        ({"name": "small\n"}, "name"),
        ({"states": []}, "states"),
        ({"states": [{"name": "draft", "terminal": "yes"}]}, "states[0].terminal"),
        ({"states": [{"name": "Draft"}]}, "states[0].name"),
    ],
)
def test_a_wrong_value_is_named_by_its_path(fields: dict[str, Any], path: str) -> None:
    assert path in faults(changed(**fields))


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    found = faults(changed(transitions=[*SMALL["transitions"], edge("draft", "done", "sideways")]))
    assert "'sideways'" in found["transitions[3].kind"]
    assert "'recover'" in found["transitions[3].kind"]


def test_a_state_named_twice_is_refused() -> None:
    found = faults(changed(states=[*SMALL["states"], {"name": "review"}]))
    assert found == {"states[3].name": "'review' is the name of an earlier state"}


def test_an_initial_state_that_is_none_is_refused() -> None:
    assert faults(changed(initial_state="start")) == {"initial_state": "'start' is not the name of a state"}


@pytest.mark.parametrize(
    ("added", "path"),
    [
        (edge("draft", "nowhere"), "transitions[3].to_state"),
        (edge("nowhere", "draft"), "transitions[3].from_state"),
        (edge("draft", "draft"), "transitions[3]"),
        (edge("draft", "review"), "transitions[3]"),
        (edge("done", "draft"), "transitions[3].from_state"),
    ],
)
def test_a_transition_that_cannot_be_taken_is_named(added: dict[str, str], path: str) -> None:
    assert list(faults(changed(transitions=[*SMALL["transitions"], added]))) == [path]


def test_a_state_that_work_never_gets_to_is_refused() -> None:
    found = faults(
        changed(
            states=[*SMALL["states"], {"name": "island"}],
            transitions=[*SMALL["transitions"], edge("island", "done")],
        )
    )
    assert found == {"states[3]": "'island' cannot be reached from the initial 'draft'"}


def test_a_state_that_work_never_gets_out_of_is_refused() -> None:
    found = faults(
        changed(
            states=[*SMALL["states"], {"name": "trap"}],
            transitions=[*SMALL["transitions"], edge("draft", "trap")],
        )
    )
    assert found == {"states[3]": "no terminal state can be reached from 'trap'"}


def test_a_template_without_an_end_is_refused() -> None:
    states = [{"name": name} for name in ("draft", "review", "done")]
    assert faults(changed(states=states)) == {"states": "none is terminal: work could never be done"}


def test_all_faults_are_told_at_once() -> None:
    assert set(faults(changed(name="", version=0, initial_state=7))) == {"name", "version", "initial_state"}


@pytest.mark.parametrize(
    ("state", "path"),
    [
        ({"name": "review"}, "states[1].owner_role"),
        ({"name": "review", "phase": "reading"}, "states[1].owner_role"),
        ({"name": "review", "owner_role": "reader", "result_schema": {}}, "states[1].result_schema"),
        (
            {"name": "review", "owner_role": "reader", "phase": "reading", "result_schema": {"type": "odd"}},
            "states[1].result_schema",
        ),
    ],
)
def test_a_state_that_nobody_could_work_in_is_named(state: dict[str, Any], path: str) -> None:
    states = [SMALL["states"][0], state, SMALL["states"][2]]
    assert path in faults(changed(states=states))


def test_what_a_state_hands_over_and_asks_for_is_read() -> None:
    asked = {"name": "draft", "owner_role": "writer", "phase": "writing", "handoff": ["text"], "result_schema": {}}
    definition = parse(changed(states=[asked, *SMALL["states"][1:]], max_retries=0))
    assert (definition.states[0].handoff, definition.states[0].result_schema) == (("text",), {})
    assert (definition.max_retries, parse(SMALL).max_retries) == (0, 3)
