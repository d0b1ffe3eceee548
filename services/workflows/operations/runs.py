"""The runs by which roles find what they have to do: asked of the tasks service, and taken back.

Each state that a workflow enters is done by one run at most. Its task has the id of the hand-off or, in the state that
a workflow begins in, of the workflow: so it is created once, however often that is asked for.
"""

from typing import Any

from sqlalchemy import Connection

from services.chassis import outbox, telemetry
from services.chassis.call import Caller
from services.chassis.clock import Clock, instant_text
from services.workflows.models.template import Definition
from services.workflows.models.workflow import Handoff, Workflow
from services.workflows.store import handoff as handoffs
from services.workflows.store import tables


def ask_for(
    connection: Connection,
    workflow: Workflow,
    definition: Definition,
    handoff: Handoff | None,
    asker: Caller,
    clock: Clock,
) -> None:
    """Asks for the run of the state that a workflow is in, where its template says so; `handoff` led there."""
    state = definition.state(workflow.state)
    if not state.run_for_role:
        return
    about = {
        "workflow_id": workflow.id,
        "build_id": workflow.build_id,
        "project_id": workflow.project_id,
        "template": workflow.template,
        "state": state.name,
    }
    _publish(
        connection,
        clock,
        id=handoff.id if handoff else workflow.id,
        role=state.owner_role,
        description=state.description or f"{state.name} of {workflow.build_id}",
        data=dict(handoff.data if handoff else _beginning(workflow, definition, clock)),
        context=about,
        asked_by=asker.agent_id,
        traceparent=telemetry.traceparent(),
    )


def withdraw(
    connection: Connection, workflow: Workflow, definition: Definition, clock: Clock, *, reason: str, is_done: bool
) -> None:
    """Takes back what was asked for, before the workflow leaves its state.

    With `is_done` whoever works on it may end in peace: most likely it was they who went on with the workflow.
    """
    if definition.state(workflow.state).run_for_role:
        _publish(connection, clock, id=current_id(connection, workflow), withdrawn=reason, is_done=is_done)


def current_id(connection: Connection, workflow: Workflow) -> str:
    """The id of the task that is to do the work of the state that a workflow is in."""
    newest = handoffs.newest_handoff(connection, workflow.id)
    return newest.id if newest else workflow.id


def _publish(connection: Connection, clock: Clock, **payload: Any) -> None:
    outbox.publish(connection, tables.outbox, outbox.HANDOFF, payload, clock)


def _beginning(workflow: Workflow, definition: Definition, clock: Clock) -> dict[str, Any]:
    """What whoever begins is handed, in the form of every hand-off's data."""
    state = definition.state(workflow.state)
    return {
        "workflow_id": workflow.id,
        "current_phase": state.phase or state.name,
        "handoff_timestamp": instant_text(clock.now()),
        "previous_phase_output": {},
        "requirements": dict(workflow.requirements),
        "instructions": state.description,
    }
