"""Moving workflows along their templates, and back."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from services.chassis.call import Caller
from services.chassis.clock import Clock, instant_text
from services.chassis.errors import InvalidArgument, Violation
from services.chassis.ids import new_id
from services.chassis.json_limits import json_faults
from services.pipeline.schemas import Schema, path
from services.workflows.errors import (
    RetriesExhausted,
    RoleNotHeld,
    StateNotCurrent,
    StateOfAnotherRole,
    TransitionNotAllowed,
    WorkflowEnded,
    WorkflowVersionMismatch,
)
from services.workflows.models.template import Definition, State, Transition, TransitionKind
from services.workflows.models.workflow import (
    Advance,
    Handoff,
    PhaseResult,
    Workflow,
    WorkflowEvent,
    WorkflowEventType,
    WorkflowStatus,
)
from services.workflows.operations.telling import tell
from services.workflows.operations.template import get_template
from services.workflows.operations.workflow import MAX_RESULT_BYTES, lock
from services.workflows.store import record
from services.workflows.store import workflow as store

_MAX_REASON = 2000
_NO_REASON = "no reason was given"


@dataclass(frozen=True)
class Moved:
    """What a move has made."""

    workflow: Workflow
    definition: Definition
    handoff: Handoff
    event: WorkflowEvent


def advance_workflow(
    connection: Connection, workflow_id: str, done: Advance, caller: Caller, clock: Clock, *, request_id: str = ""
) -> Moved:
    """Records that the work of a state is done, and goes on.

    Raises WorkflowNotFound, WorkflowEnded, WorkflowVersionMismatch, StateNotCurrent, RoleNotHeld, StateOfAnotherRole,
    TransitionNotAllowed, RetriesExhausted or InvalidArgument.
    """
    if done.role != caller.role and not caller.holds("admin"):
        raise RoleNotHeld(done.role, caller.role)
    before, definition = _open(connection, workflow_id)
    if done.version is not None and done.version != before.version:
        raise WorkflowVersionMismatch(workflow_id, done.version, before.version)
    if done.completed_state.lower() != before.state:
        raise StateNotCurrent(done.completed_state, before.state)
    move = _chosen(definition, before.state, done.next_state)
    _require_owner(definition, move, done.role)
    state = definition.state(before.state)
    _check_result(state, move, done.result)
    now = clock.now()
    if state.phase and move.kind in (TransitionKind.FORWARD, TransitionKind.RETRY):
        _record_result(connection, before, state, done, caller, now)
    return _move(
        connection,
        before,
        definition,
        move,
        WorkflowEventType.STATE_ADVANCED,
        caller,
        now,
        clock,
        role=done.role,
        result=done.result,
        reason=_reason(done.result) if move.kind is TransitionKind.ERROR else "",
        request_id=request_id,
    )


def request_retry(
    connection: Connection, workflow_id: str, reason: str, caller: Caller, clock: Clock, *, request_id: str = ""
) -> Moved:
    """Sends work back along the retry transition of its state.

    Raises WorkflowNotFound, WorkflowEnded, TransitionNotAllowed or RetriesExhausted.
    """
    before, definition = _open(connection, workflow_id)
    back = definition.moves(before.state, TransitionKind.RETRY)
    if not back:
        can = [state.name for state in definition.states if definition.moves(state.name, TransitionKind.RETRY)]
        raise TransitionNotAllowed(before.state, f"be done again; from {' or '.join(map(repr, can))} work", can)
    return _move(
        connection,
        before,
        definition,
        back[0],
        WorkflowEventType.RETRY_REQUESTED,
        caller,
        clock.now(),
        clock,
        role=caller.role,
        result={},
        reason=reason,
        request_id=request_id,
    )


def roll_back_workflow(
    connection: Connection,
    workflow_id: str,
    target_state: str,
    reason: str,
    caller: Caller,
    clock: Clock,
    *,
    request_id: str = "",
) -> Moved:
    """Sets a workflow back to an earlier state. Raises WorkflowNotFound, WorkflowEnded or InvalidArgument."""
    before, definition = _open(connection, workflow_id)
    earlier = [state.name for state in definition.states[: definition.place(before.state)] if state.owner_role]
    target = target_state.lower()
    if target not in earlier:
        choices = f"one of {', '.join(earlier)}" if earlier else "nothing, for it is in the first one"
        fault = Violation("target_state", f"{target_state!r} is no earlier state than {before.state!r}: use {choices}")
        raise InvalidArgument.of([fault])
    return _move(
        connection,
        before,
        definition,
        Transition(before.state, target, TransitionKind.RECOVER),
        WorkflowEventType.ROLLED_BACK,
        caller,
        clock.now(),
        clock,
        role=caller.role,
        result={},
        reason=reason,
        request_id=request_id,
    )


def _open(connection: Connection, workflow_id: str) -> tuple[Workflow, Definition]:
    """A workflow that can go on, locked, and its template."""
    workflow = lock(connection, workflow_id)
    if workflow.status.is_final:
        raise WorkflowEnded(workflow_id, workflow.status)
    template = get_template(connection, name=workflow.template, version=workflow.template_version)
    return workflow, template.definition


def _chosen(definition: Definition, from_state: str, wanted: str) -> Transition:
    """The move that is asked for, or else the only one that leads forward."""
    moves = definition.moves(from_state)
    if wanted:
        for move in moves:
            if move.to_state == wanted.lower():
                return move
        raise TransitionNotAllowed(from_state, repr(wanted), [move.to_state for move in moves])
    forward = definition.moves(from_state, TransitionKind.FORWARD)
    if len(forward) == 1:
        return forward[0]
    choices = ", ".join(move.to_state for move in forward or moves)
    fault = Violation("next_state", f"is needed in state {from_state!r}, from which several ways lead on: {choices}")
    raise InvalidArgument.of([fault])


def _require_owner(definition: Definition, move: Transition, role: str) -> None:
    owner = definition.state(move.from_state).owner_role
    owners = [owner] if owner else [definition.state(move.to_state).owner_role]
    if role not in owners:
        raise StateOfAnotherRole(role, move.from_state, owners)


def _check_result(state: State, move: Transition, result: Mapping[str, Any]) -> None:
    """Raises InvalidArgument that says where a result is not what the template asks for; of a failure all will do."""
    faults = json_faults("phase_result", result, MAX_RESULT_BYTES)
    if not faults and state.result_schema is not None and move.kind is not TransitionKind.ERROR:
        found = Schema(state.result_schema).faults(result)
        faults = [Violation(path(fault, "phase_result"), fault.message[:500]) for fault in found]
    if faults:
        raise InvalidArgument.of(faults)


def _record_result(
    connection: Connection, workflow: Workflow, state: State, done: Advance, caller: Caller, now: datetime
) -> None:
    record.supersede(connection, workflow.id, [state.phase], now)
    record.add_result(
        connection,
        PhaseResult(
            id=new_id(),
            workflow_id=workflow.id,
            phase=state.phase,
            attempt=record.next_attempt(connection, workflow.id, state.phase),
            role=done.role,
            agent_id=caller.agent_id,
            result=done.result,
            completed_at=now,
            superseded_at=None,
        ),
    )


def _move(
    connection: Connection,
    before: Workflow,
    definition: Definition,
    move: Transition,
    event_type: WorkflowEventType,
    caller: Caller,
    now: datetime,
    clock: Clock,
    *,
    role: str,
    result: Mapping[str, Any],
    reason: str,
    request_id: str,
) -> Moved:
    """Writes the new state, the hand-over and the event, and tells of it."""
    is_retry = move.kind is TransitionKind.RETRY
    if is_retry and before.retries >= definition.max_retries:
        raise RetriesExhausted(definition.max_retries)
    if move.kind is not TransitionKind.FORWARD and move.kind is not TransitionKind.ERROR:
        record.supersede(connection, before.id, _phases_from(definition, move.to_state), now)
    status = _status(definition, move)
    after = replace(
        before,
        state=move.to_state,
        status=status,
        retries=before.retries + is_retry,
        error_reason=reason if status is WorkflowStatus.FAILED else "",
        version=before.version + 1,
        updated_at=now,
        completed_at=now if status.is_final else None,
        deadline=definition.state(move.to_state).deadline(now),
        is_overdue=False,
    )
    store.save_workflow(connection, after)
    handoff = Handoff(
        id=new_id(),
        workflow_id=before.id,
        from_role=definition.state(move.from_state).owner_role,
        to_role=definition.next_role(move.to_state),
        from_state=move.from_state,
        to_state=move.to_state,
        kind=move.kind,
        data=_data(after, definition, move, result, now),
        created_at=now,
    )
    record.add_handoff(connection, handoff)
    event = WorkflowEvent(
        workflow_id=before.id,
        sequence=after.version,
        event_type=event_type,
        triggered_by=caller.agent_id,
        role=role,
        from_state=before.state,
        to_state=after.state,
        data={"kind": move.kind.value} | ({"reason": reason} if reason else {}),
        occurred_at=now,
    )
    record.add_event(connection, event)
    tell(connection, before, after, event, clock, request_id=request_id)
    return Moved(after, definition, handoff, event)


def _status(definition: Definition, move: Transition) -> WorkflowStatus:
    if definition.state(move.to_state).terminal:
        return WorkflowStatus.COMPLETE
    return WorkflowStatus.FAILED if move.kind is TransitionKind.ERROR else WorkflowStatus.IN_PROGRESS


def _phases_from(definition: Definition, state: str) -> list[str]:
    """The phases that have to be done again when work is set back to a state: its own, and all that come after."""
    return [one.phase for one in definition.states[definition.place(state) :] if one.phase]


def _data(
    after: Workflow, definition: Definition, move: Transition, result: Mapping[str, Any], now: datetime
) -> dict[str, Any]:
    """What the next role is handed."""
    from_state, to_state = definition.state(move.from_state), definition.state(move.to_state)
    return {
        **{name: result[name] for name in from_state.handoff if name in result},
        "workflow_id": after.id,
        "current_phase": to_state.phase or to_state.name,
        "handoff_timestamp": instant_text(now),
        "previous_phase_output": dict(result),
        "instructions": to_state.description,
    }


def _reason(result: Mapping[str, Any]) -> str:
    given = result.get("reason") or result.get("error")
    return str(given)[:_MAX_REASON] if given else _NO_REASON
