"""The `build` template, which the clients of an earlier system rely on state by state."""

from collections import Counter
from itertools import pairwise

from services.workflows.models.template import Definition, TransitionKind
from services.workflows.shipped import shipped_definitions

OWNERS = {
    "discovery": "q_assistant",
    "planning": "q_assistant",
    "handoff_to_coder": "q_assistant",
    "implementation": "code_writer",
    "handoff_to_tester": "code_writer",
    "testing": "test_auditor",
    "handoff_to_verifier": "test_auditor",
    "verification": "verification_overseer",
    "handoff_to_releaser": "verification_overseer",
    "deployment": "release_manager",
    "complete": "release_manager",
    "error": "",
}


def build() -> Definition:
    return next(definition for definition in shipped_definitions() if definition.name == "build")


def edges(kind: TransitionKind) -> list[tuple[str, str]]:
    return [(edge.from_state, edge.to_state) for edge in build().transitions if edge.kind is kind]


def test_every_state_has_its_owner() -> None:
    assert {state.name: state.owner_role for state in build().states} == OWNERS


def test_work_begins_with_discovery_and_ends_only_complete() -> None:
    assert build().initial_state == "discovery"
    assert [state.name for state in build().states if state.terminal] == ["complete"]


def test_six_states_produce_the_phase_of_their_name() -> None:
    phases = {state.name: state.phase for state in build().states if state.phase}
    assert list(phases) == ["discovery", "planning", "implementation", "testing", "verification", "deployment"]
    assert list(phases.values()) == list(phases)


def test_the_forward_chain_goes_through_every_state_in_order() -> None:
    chain = [name for name in OWNERS if name != "error"]
    assert edges(TransitionKind.FORWARD) == list(pairwise(chain))


def test_work_goes_back_and_fails_and_is_taken_up_again() -> None:
    assert set(edges(TransitionKind.RETRY)) == {("testing", "implementation"), ("verification", "implementation")}
    working = {"discovery", "planning", "implementation", "testing", "verification"}
    assert set(edges(TransitionKind.ERROR)) == {(name, "error") for name in working | {"deployment"}}
    assert set(edges(TransitionKind.RECOVER)) == {("error", name) for name in working}


def test_there_are_23_transitions() -> None:
    assert Counter(edge.kind for edge in build().transitions) == {
        TransitionKind.FORWARD: 10,
        TransitionKind.RETRY: 2,
        TransitionKind.ERROR: 6,
        TransitionKind.RECOVER: 5,
    }
