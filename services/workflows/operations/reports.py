"""What runs that were asked for have come to: a report can take its workflow on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from services.chassis import telemetry
from services.chassis.call import Caller
from services.chassis.clock import Clock
from services.chassis.errors import FailedPrecondition, InvalidArgument, ServiceError, Violation
from services.chassis.ids import is_uuid
from services.chassis.outbox import Message, MessageRefused
from services.workflows.models.template import Definition, TransitionKind
from services.workflows.models.workflow import Advance, Workflow, WorkflowEventType
from services.workflows.operations.moves import advance_workflow
from services.workflows.operations.moving import open_workflow, stay
from services.workflows.operations.runs import current_id
from services.workflows.store import handoff as handoffs
from services.workflows.store import record
from services.workflows.store import workflow as workflows

# Of runs, as the tasks service tells it, and the fields of their output.
_SUCCEEDED, _FAILED = "succeeded", "failed"
_RESULT, _NEXT = "phase_result", "next_state"
_MAX_REASON = 2000


@dataclass(frozen=True)
class Report:
    """How the run ended that was to do the work of a state."""

    task_id: str
    run_id: str
    agent_id: str
    status: str
    output: dict[str, Any]
    error: str
    """Why it failed; empty when it did not."""
    traceparent: str

    @property
    def is_silent(self) -> bool:
        """Whether it says nothing to go on with."""
        return self.status == _SUCCEEDED and _RESULT not in self.output


def take_reports(connection: Connection, clock: Clock, source: str, messages: Sequence[Message]) -> None:
    """Goes on with what runs have reported. One that comes twice, or too late, changes nothing. Raises MessageRefused.

    A workflow that cannot go on with it stays where it is, and has an event that says why.
    """
    for message in messages:
        report = _told(message)
        with telemetry.continued(report.traceparent, "workflows.report"):
            _take(connection, report, clock)


def _take(connection: Connection, report: Report, clock: Clock) -> None:
    workflow = _waiting_for(connection, report)
    if workflow is None or report.is_silent:
        # It has gone on already; or whoever did the work says what came of it in another way.
        return
    _, definition = open_workflow(connection, workflow.id)
    reporter = Caller(report.agent_id, role=definition.state(workflow.state).owner_role)
    try:
        done = _done(report, workflow, definition, reporter.role)
        with connection.begin_nested():
            advance_workflow(connection, workflow.id, done, reporter, clock, by_report=True)
    except ServiceError as refused:
        told = {"run_id": report.run_id, "reason": _reason(refused)}
        stay(connection, workflow, WorkflowEventType.REPORT_REFUSED, reporter, told, clock)


def _waiting_for(connection: Connection, report: Report) -> Workflow | None:
    """The workflow that waits for this very run, locked; None when none does any more."""
    handoff = handoffs.find_handoff(connection, report.task_id)
    workflow = workflows.lock_workflow(connection, handoff.workflow_id if handoff else report.task_id)
    if workflow is None or workflow.status.is_final or current_id(connection, workflow) != report.task_id:
        return None
    (newest,) = record.list_events(connection, workflow.id, limit=1, before=None)
    is_known = newest.event_type is WorkflowEventType.REPORT_REFUSED and newest.data.get("run_id") == report.run_id
    return None if is_known else workflow


def _done(report: Report, workflow: Workflow, definition: Definition, role: str) -> Advance:
    """What a report says is done. Raises ServiceError when the workflow cannot go on with it."""
    result, next_state = report.output.get(_RESULT), report.output.get(_NEXT, "")
    if report.status == _FAILED:
        result, next_state = {"reason": report.error}, _error_state(definition, workflow.state, report.error)
    elif report.status != _SUCCEEDED:
        raise FailedPrecondition(f"the run was not done, it is {report.status}", reason="RUN_NOT_DONE")
    if not isinstance(result, dict):
        raise InvalidArgument.of([Violation(_RESULT, "must be an object")])
    if not isinstance(next_state, str):
        raise InvalidArgument.of([Violation(_NEXT, "must be the name of a state")])
    return Advance(role=role, completed_state=workflow.state, result=result, next_state=next_state, version=None)


def _error_state(definition: Definition, state: str, error: str) -> str:
    moves = definition.moves(state, TransitionKind.ERROR)
    if not moves:
        raise FailedPrecondition(f"the run has failed: {error}", reason="RUN_FAILED")
    return moves[0].to_state


def _reason(refused: ServiceError) -> str:
    """What was wrong, and where."""
    faults = "; ".join(f"{one.field} {one.description}" for one in refused.violations)
    return (faults or refused.message)[:_MAX_REASON]


def _told(message: Message) -> Report:
    match message.payload:
        case {
            "id": str(task_id),
            "run_id": str(run_id),
            "agent_id": str(agent_id),
            "status": str(status),
            "output": dict(output),
            "error": str(error),
            "traceparent": str(traceparent),
        } if is_uuid(task_id) and is_uuid(agent_id):
            return Report(task_id, run_id, agent_id, status, output, error, traceparent)
    raise MessageRefused(message.id, "has not the fields id, run_id, agent_id, status, output, error and traceparent")
