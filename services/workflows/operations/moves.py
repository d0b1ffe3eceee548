"""Moving workflows along their templates, and back."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from services.chassis.call import Caller
from services.chassis.clock import Clock
from services.chassis.errors import InvalidArgument, Violation
from services.chassis.ids import new_id
from services.chassis.json_limits import json_faults
from services.pipeline.schemas import Schema, path
from services.workflows.errors import (
    HandoffNotAccepted,
    RetryNotAllowed,
    RoleNotHeld,
    StateNotCurrent,
    StateOfAnotherRole,
    TransitionNotAllowed,
    WorkflowVersionMismatch,
)
from services.workflows.models.template import Definition, State, Transition, TransitionKind
from services.workflows.models.workflow import Advance, HandoffStatus, PhaseResult, Workflow, WorkflowEventType
from services.workflows.operations.moving import Moved, Moving, move, open_workflow
from services.workflows.operations.workflow import MAX_RESULT_BYTES
from services.workflows.store import handoff as handoffs
from services.workflows.store import record

_MAX_REASON = 2000
_NO_REASON = "no reason was given"


def advance_workflow(
    connection: Connection,
    workflow_id: str,
    done: Advance,
    caller: Caller,
    clock: Clock,
    *,
    request_id: str = "",
    by_report: bool = False,
) -> Moved:
    """Records that the work of a state is done, and goes on. `by_report`: its run has said so.

    Raises WorkflowNotFound, WorkflowEnded, WorkflowVersionMismatch, StateNotCurrent, RoleNotHeld, StateOfAnotherRole,
    HandoffNotAccepted, TransitionNotAllowed, RetriesExhausted or InvalidArgument.
    """
    if done.role != caller.role and not caller.holds("admin"):
        raise RoleNotHeld(done.role, caller.role)
    before, definition = open_workflow(connection, workflow_id)
    if done.version is not None and done.version != before.version:
        raise WorkflowVersionMismatch(workflow_id, done.version, before.version)
    if done.completed_state.lower() != before.state:
        raise StateNotCurrent(done.completed_state, before.state)
    step = _chosen(definition, before.state, done.next_state)
    _require_owner(definition, step, done.role)
    if step.kind is not TransitionKind.ERROR:
        _require_accepted(connection, before)
    state = definition.state(before.state)
    _check_result(state, step, done.result)
    if state.phase and step.kind in (TransitionKind.FORWARD, TransitionKind.RETRY):
        _record_result(connection, before, state, done, caller, clock.now())
    why = Moving(
        event_type=WorkflowEventType.STATE_ADVANCED,
        caller=caller,
        role=done.role,
        reason=_reason(done.result) if step.kind is TransitionKind.ERROR else "",
        result=done.result,
        request_id=request_id,
        by_report=by_report,
    )
    return move(connection, before, definition, step, why, clock)


def request_retry(
    connection: Connection, workflow_id: str, reason: str, caller: Caller, clock: Clock, *, request_id: str = ""
) -> Moved:
    """Sends work back along the retry transition of its state.

    Raises WorkflowNotFound, WorkflowEnded, RetryNotAllowed or RetriesExhausted.
    """
    before, definition = open_workflow(connection, workflow_id)
    back = definition.moves(before.state, TransitionKind.RETRY)
    if not back:
        can = [state.name for state in definition.states if definition.moves(state.name, TransitionKind.RETRY)]
        raise RetryNotAllowed(before.state, can)
    why = Moving(
        event_type=WorkflowEventType.RETRY_REQUESTED,
        caller=caller,
        role=caller.role,
        reason=reason,
        request_id=request_id,
    )
    return move(connection, before, definition, back[0], why, clock)


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
    before, definition = open_workflow(connection, workflow_id)
    earlier = [state.name for state in definition.states[: definition.place(before.state)] if state.owner_role]
    target = target_state.lower()
    if target not in earlier:
        choices = f"one of {', '.join(earlier)}" if earlier else "nothing, for it is in the first one"
        fault = Violation("target_state", f"{target_state!r} is no earlier state than {before.state!r}: use {choices}")
        raise InvalidArgument.of([fault])
    why = Moving(
        event_type=WorkflowEventType.ROLLED_BACK,
        caller=caller,
        role=caller.role,
        reason=reason,
        request_id=request_id,
    )
    step = Transition(before.state, target, TransitionKind.RECOVER)
    return move(connection, before, definition, step, why, clock)


def _chosen(definition: Definition, from_state: str, wanted: str) -> Transition:
    """The move that is asked for, or else the only one that leads forward."""
    moves = definition.moves(from_state)
    if wanted:
        for step in moves:
            if step.to_state == wanted.lower():
                return step
        raise TransitionNotAllowed(from_state, wanted, [step.to_state for step in moves])
    forward = definition.moves(from_state, TransitionKind.FORWARD)
    if len(forward) == 1:
        return forward[0]
    choices = ", ".join(step.to_state for step in forward or moves)
    fault = Violation("next_state", f"is needed in state {from_state!r}, from which several ways lead on: {choices}")
    raise InvalidArgument.of([fault])


def _require_owner(definition: Definition, step: Transition, role: str) -> None:
    owner = definition.state(step.from_state).owner_role
    owners = [owner] if owner else [definition.state(step.to_state).owner_role]
    if role not in owners:
        raise StateOfAnotherRole(role, step.from_state, owners)


def _require_accepted(connection: Connection, workflow: Workflow) -> None:
    newest = handoffs.newest_handoff(connection, workflow.id)
    if newest is not None and newest.status is HandoffStatus.OFFERED:
        raise HandoffNotAccepted(newest.id, newest.to_role)


def _check_result(state: State, step: Transition, result: Mapping[str, Any]) -> None:
    """Raises InvalidArgument that says where a result is not what the template asks for; of a failure all will do."""
    faults = json_faults("phase_result", result, MAX_RESULT_BYTES)
    if not faults and state.result_schema is not None and step.kind is not TransitionKind.ERROR:
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


def _reason(result: Mapping[str, Any]) -> str:
    given = result.get("reason") or result.get("error")
    return str(given)[:_MAX_REASON] if given else _NO_REASON
