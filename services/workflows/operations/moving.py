"""Setting a workflow to another state: what is written whenever one moves, whatever the reason."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from services.chassis import telemetry
from services.chassis.call import Caller
from services.chassis.clock import Clock, instant_text
from services.chassis.ids import new_id
from services.workflows.errors import RetriesExhausted, WorkflowEnded
from services.workflows.models.template import Definition, Transition, TransitionKind
from services.workflows.models.workflow import (
    Handoff,
    HandoffStatus,
    Workflow,
    WorkflowEvent,
    WorkflowEventType,
    WorkflowStatus,
)
from services.workflows.operations import runs
from services.workflows.operations.telling import tell, tell_offered
from services.workflows.operations.template import get_template
from services.workflows.operations.workflow import lock
from services.workflows.store import handoff as handoffs
from services.workflows.store import record
from services.workflows.store import workflow as store

_WENT_ON = "the workflow has gone on elsewhere"


@dataclass(frozen=True, kw_only=True)
class Moving:
    """Why a workflow moves, and who moves it."""

    event_type: WorkflowEventType
    caller: Caller
    role: str
    """In which role."""
    reason: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)
    """What is handed over."""
    request_id: str = ""
    returns_to: WorkflowStatus | None = None
    """For work that nobody took: how the workflow stood where it came from. Nobody has to accept it there."""
    by_report: bool = False
    """Whether the run that was to do the work says so itself."""


@dataclass(frozen=True)
class Moved:
    """What a move has made."""

    workflow: Workflow
    definition: Definition
    handoff: Handoff
    event: WorkflowEvent


def open_workflow(connection: Connection, workflow_id: str) -> tuple[Workflow, Definition]:
    """A workflow that can go on, locked, and its template. Raises WorkflowNotFound or WorkflowEnded."""
    workflow = lock(connection, workflow_id)
    if workflow.status.is_final:
        raise WorkflowEnded(workflow_id, workflow.status)
    template = get_template(connection, name=workflow.template, version=workflow.template_version)
    return workflow, template.definition


def move(
    connection: Connection, before: Workflow, definition: Definition, step: Transition, why: Moving, clock: Clock
) -> Moved:
    """Writes the new state, the hand-off and the event, and tells of it. Raises RetriesExhausted."""
    now, to_state = clock.now(), definition.state(step.to_state)
    is_retry = step.kind is TransitionKind.RETRY
    if is_retry and before.retries >= definition.max_retries:
        raise RetriesExhausted(definition.max_retries)
    if step.kind is not TransitionKind.FORWARD and step.kind is not TransitionKind.ERROR:
        record.supersede(connection, before.id, _phases_from(definition, step.to_state), now)
    handoffs.expire_offered(connection, before.id, _WENT_ON, now)
    if not why.by_report:
        _withdraw_run(connection, before, definition, step, why, clock)
    status = why.returns_to or _status(definition, step)
    after = replace(
        before,
        state=step.to_state,
        status=status,
        retries=before.retries + is_retry,
        error_reason=why.reason if status is WorkflowStatus.FAILED else "",
        version=before.version + 1,
        updated_at=now,
        completed_at=now if status.is_final else None,
        deadline=to_state.deadline(now),
        is_overdue=False,
        traceparent=telemetry.traceparent(),
    )
    store.save_workflow(connection, after)
    telemetry.link(before.traceparent)
    is_offered = to_state.ack_required and why.returns_to is None
    handoff = Handoff(
        id=new_id(),
        workflow_id=before.id,
        from_role=definition.state(step.from_state).owner_role,
        to_role=definition.next_role(step.to_state),
        from_state=step.from_state,
        to_state=step.to_state,
        kind=step.kind,
        data=_data(after, definition, step, why.result, now),
        created_at=now,
        status=HandoffStatus.OFFERED if is_offered else HandoffStatus.ACCEPTED,
        came_from=before.status,
        ack_deadline=to_state.ack_deadline(now) if is_offered else None,
    )
    handoffs.add_handoff(connection, handoff)
    event = WorkflowEvent(
        workflow_id=before.id,
        sequence=after.version,
        event_type=why.event_type,
        triggered_by=why.caller.agent_id,
        role=why.role,
        from_state=before.state,
        to_state=after.state,
        data={"kind": step.kind.value, "handoff_id": handoff.id} | ({"reason": why.reason} if why.reason else {}),
        occurred_at=now,
        trace_id=telemetry.trace_id(),
    )
    record.add_event(connection, event)
    tell(connection, before, after, event, clock, request_id=why.request_id)
    if is_offered:
        tell_offered(connection, after, handoff, clock)
    runs.ask_for(connection, after, definition, handoff, why.caller, clock)
    return Moved(after, definition, handoff, event)


def stay(
    connection: Connection,
    before: Workflow,
    event_type: WorkflowEventType,
    who: Caller,
    data: Mapping[str, Any],
    clock: Clock,
    *,
    request_id: str = "",
) -> Workflow:
    """Writes that something happened by which a workflow does not move, and tells of it."""
    now = clock.now()
    after = replace(before, version=before.version + 1, updated_at=now, traceparent=telemetry.traceparent())
    store.save_workflow(connection, after)
    telemetry.link(before.traceparent)
    event = WorkflowEvent(
        workflow_id=before.id,
        sequence=after.version,
        event_type=event_type,
        triggered_by=who.agent_id,
        role=who.role,
        from_state=before.state,
        to_state=after.state,
        data=data,
        occurred_at=now,
        trace_id=telemetry.trace_id(),
    )
    record.add_event(connection, event)
    tell(connection, before, after, event, clock, request_id=request_id)
    return after


def _withdraw_run(
    connection: Connection, before: Workflow, definition: Definition, step: Transition, why: Moving, clock: Clock
) -> None:
    reason = f"the workflow is in state {step.to_state!r} now"
    is_done = why.event_type is WorkflowEventType.STATE_ADVANCED
    runs.withdraw(connection, before, definition, clock, reason=reason, is_done=is_done)


def _status(definition: Definition, step: Transition) -> WorkflowStatus:
    if definition.state(step.to_state).terminal:
        return WorkflowStatus.COMPLETE
    return WorkflowStatus.FAILED if step.kind is TransitionKind.ERROR else WorkflowStatus.IN_PROGRESS


def _phases_from(definition: Definition, state: str) -> list[str]:
    """The phases that have to be done again when work is set back to a state: its own, and all that come after."""
    return [one.phase for one in definition.states[definition.place(state) :] if one.phase]


def _data(
    after: Workflow, definition: Definition, step: Transition, result: Mapping[str, Any], now: datetime
) -> dict[str, Any]:
    """What the next role is handed."""
    from_state, to_state = definition.state(step.from_state), definition.state(step.to_state)
    return {
        **{name: result[name] for name in from_state.handoff if name in result},
        "workflow_id": after.id,
        "current_phase": to_state.phase or to_state.name,
        "handoff_timestamp": instant_text(now),
        "previous_phase_output": dict(result),
        "instructions": to_state.description,
    }
