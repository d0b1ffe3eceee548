"""P7: whatever is asked of a workflow, of whatever shape, it goes only where its template leads."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, select

from services.chassis import outbox
from services.chassis.call import Caller
from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.errors import InvalidArgument, ServiceError
from services.chassis.ids import new_id
from services.workflows.definition import parse
from services.workflows.models.template import Definition, TransitionKind
from services.workflows.models.workflow import Advance, HandoffStatus, NewWorkflow, WorkflowEventType
from services.workflows.operations import handoffs, moves
from services.workflows.operations import template as templates
from services.workflows.operations import workflow as operations
from services.workflows.store import tables
from tests.integration.workflows.running import Workflows

ROLES = ("alpha", "beta", "gamma")
ADMIN = Caller(new_id(), frozenset({"admin"}))


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Templates of a few states, most of which are good."""
    count = draw(st.integers(2, 6))
    names = [f"s{n}" for n in range(count)]
    states = [
        {
            "name": name,
            "owner_role": draw(st.sampled_from(ROLES)),
            "phase": draw(st.sampled_from(["", name])),
            **draw(st.sampled_from([{}, {"ack_required": True}, {"run_for_role": True}])),
        }
        for name in names[:-1]
    ] + [{"name": names[-1], "terminal": True, "owner_role": "alpha"}]
    edges = {(names[n], names[n + 1]): "forward" for n in range(count - 1)}
    pairs = st.tuples(st.sampled_from(names[:-1]), st.sampled_from(names)).filter(lambda pair: pair[0] != pair[1])
    for pair in draw(st.lists(pairs, max_size=4)):
        kind = draw(st.sampled_from(["forward", "retry", "recover"]))
        edges.setdefault(pair, kind)
    if draw(st.booleans()):
        states.append({"name": "broken"})
        edges[names[0], "broken"], edges["broken", names[0]] = "error", "recover"
    transitions = [{"from_state": a, "to_state": b, "kind": kind} for (a, b), kind in edges.items()]
    return {
        "name": "drawn", "version": 1, "initial_state": names[0], "states": states, "transitions": transitions,
        "max_retries": draw(st.integers(0, 3)),
    }  # fmt: skip


STATES = st.sampled_from([*(f"s{n}" for n in range(6)), "broken", "nowhere"])
CALLS = st.lists(
    st.one_of(
        st.tuples(st.just("advance"), st.sampled_from(ROLES), st.booleans(), STATES, st.booleans()),
        st.tuples(st.just("retry")),
        st.tuples(st.just("roll_back"), STATES),
        st.tuples(st.just("cancel"), st.integers(0, 9)),
        st.tuples(st.just("accept")),
        st.tuples(st.just("reject")),
    ),
    max_size=25,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=documents(), calls=CALLS)
def test_a_workflow_follows_its_template(workflows_database: Database, document: dict[str, Any], calls: Any) -> None:
    try:
        definition = parse(document)
    except InvalidArgument:
        return
    workflow_id = workflows_database.run(lambda connection, clock: _begun(connection, definition, clock))
    for call in calls:
        before = workflows_database.run(lambda connection, clock: operations.get_workflow(connection, workflow_id))
        try:
            workflows_database.run(_asked(definition, before.workflow.state, workflow_id, call))
        except ServiceError:
            after = workflows_database.run(lambda connection, clock: operations.get_workflow(connection, workflow_id))
            assert after == before
    workflows_database.run(lambda connection, clock: _check(connection, definition, workflow_id))


def _begun(connection: Connection, definition: Definition, clock: Clock) -> str:
    name = f"drawn-{new_id()}"
    drawn = Definition(**vars(definition) | {"name": name})
    templates.store_templates(connection, [drawn], clock=clock)
    new = NewWorkflow(build_id=name, project_id="p", user_id="", template=name, requirements={}, metadata={})
    return operations.start_workflow(connection, new, ADMIN, clock).workflow.id


def _asked(
    definition: Definition, state: str, workflow_id: str, call: tuple[Any, ...]
) -> Callable[[Connection, Clock], Any]:
    """Most calls to advance are good: made by the owner, in the state that it is in."""
    match call:
        case ("advance", role, is_owner, wanted, is_next):
            owner = definition.state(state).owner_role or definition.state(definition.initial_state).owner_role
            following = [move.to_state for move in definition.moves(state)]
            done = Advance(
                role=owner if is_owner else role,
                completed_state=state,
                result={"reason": "drawn"},
                next_state=following[0] if is_next and following else wanted,
                version=None,
            )
            return lambda connection, clock: moves.advance_workflow(connection, workflow_id, done, ADMIN, clock)
        case ("retry",):
            return lambda connection, clock: moves.request_retry(connection, workflow_id, "drawn", ADMIN, clock)
        case ("roll_back", target):
            return lambda connection, clock: moves.roll_back_workflow(
                connection, workflow_id, target, "drawn", ADMIN, clock
            )
        case ("accept",):
            return lambda connection, clock: _decide(connection, clock, workflow_id, handoffs.accept_handoff)
        case ("reject",):
            return lambda connection, clock: _decide(
                connection,
                clock,
                workflow_id,
                lambda connection, handoff_id, caller, clock: handoffs.reject_handoff(
                    connection, handoff_id, "drawn", caller, clock
                ),
            )
        case ("cancel", number) if number == 0:
            return lambda connection, clock: operations.cancel_workflow(connection, workflow_id, "", ADMIN, clock)
    return lambda connection, clock: None


def _decide(connection: Connection, clock: Clock, workflow_id: str, decide: Callable[..., Any]) -> None:
    _, newest = operations.get_history(connection, workflow_id, 1)
    if newest:
        decide(connection, newest[0].id, ADMIN, clock)


def _check(connection: Connection, definition: Definition, workflow_id: str) -> None:
    standing = operations.get_workflow(connection, workflow_id)
    events = list(reversed(operations.list_events(connection, workflow_id, limit=1000, before=None)))
    # One event for each version, and the state is what they replay to.
    assert [event.sequence for event in events] == list(range(1, standing.workflow.version + 1))
    state, came_from = "", {}
    allowed = {(edge.from_state, edge.to_state) for edge in definition.transitions}
    retries = {(edge.from_state, edge.to_state) for edge in definition.transitions if edge.kind is TransitionKind.RETRY}
    for event in events:
        assert event.from_state == state
        state, step = event.to_state, (event.from_state, event.to_state)
        if event.event_type is WorkflowEventType.STATE_ADVANCED:
            assert step in allowed
        elif event.event_type is WorkflowEventType.RETRY_REQUESTED:
            assert step in retries
        elif event.event_type is WorkflowEventType.ROLLED_BACK:
            assert definition.place(event.to_state) < definition.place(event.from_state)
        elif event.event_type is WorkflowEventType.HANDOFF_REJECTED:
            assert came_from[event.from_state] == event.to_state
        if event.event_type is not WorkflowEventType.HANDOFF_REJECTED:
            came_from[event.to_state] = event.from_state
    assert state == standing.workflow.state
    count, made = operations.get_history(connection, workflow_id, 1000)
    assert count == len(made) == len([event for event in events if event.to_state != event.from_state]) - 1
    assert 0 <= standing.progress <= 100
    assert standing.workflow.retries <= definition.max_retries
    results = tables.phase_results
    current = select(results.c.phase).where(results.c.workflow_id == workflow_id, results.c.superseded_at.is_(None))
    phases = list(connection.execute(current).scalars())
    assert sorted(phases) == sorted(standing.completed_phases)
    # What is offered is the newest, of a state that asks for it, while the workflow is in it.
    offers = [one for one in made if one.status is HandoffStatus.OFFERED]
    assert offers in ([], made[-1:])
    if offers:
        assert definition.state(state).ack_required
    # A run was asked for each time that a state was entered which wants one, and taken back whenever it was left.
    told = [one.payload for one in outbox.oldest(connection, tables.outbox, outbox.HANDOFF, 10_000)]
    mine = [one for one in told if one["id"] in {workflow_id, *(handoff.id for handoff in made)}]
    entered = [definition.initial_state, *(one.to_state for one in made)]
    wanted = [name for name in entered if definition.state(name).run_for_role]
    assert [one["context"]["state"] for one in mine if "withdrawn" not in one] == wanted
    is_left = standing.workflow.status == "canceled"
    left = [name for name in (entered if is_left else entered[:-1]) if definition.state(name).run_for_role]
    assert len([one for one in mine if "withdrawn" in one]) == len(left)
    is_terminal = definition.state(state).terminal
    assert (standing.workflow.status == "complete") == is_terminal


@pytest.fixture
def workflows_database(workflows: Workflows) -> Database:
    return workflows.service.database
