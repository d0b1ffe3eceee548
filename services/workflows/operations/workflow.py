"""Starting, reading and calling off workflows."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from services.chassis import telemetry
from services.chassis.call import Caller
from services.chassis.clock import Clock
from services.chassis.errors import InvalidArgument
from services.chassis.ids import new_id
from services.chassis.json_limits import MAX_BYTES, json_faults
from services.workflows.errors import BuildExists, WorkflowEnded, WorkflowNotFound
from services.workflows.models.template import Definition
from services.workflows.models.workflow import (
    Handoff,
    NewWorkflow,
    ProjectStats,
    Workflow,
    WorkflowEvent,
    WorkflowEventType,
    WorkflowFilter,
    WorkflowStatus,
)
from services.workflows.operations import runs
from services.workflows.operations.telling import tell
from services.workflows.operations.template import get_template
from services.workflows.store import handoff as handoffs
from services.workflows.store import record
from services.workflows.store import workflow as store

MAX_RESULT_BYTES = 256 * 1024
_SHOWN_HANDOFFS = 50
_CALLED_OFF = "the workflow was called off"


@dataclass(frozen=True)
class Standing:
    """A workflow, the template that it follows, and the phases that are done, in the template's order."""

    workflow: Workflow
    definition: Definition
    completed_phases: tuple[str, ...]

    @property
    def progress(self) -> float:
        """How many of the phases are done, in percent with one decimal."""
        return round(100.0 * len(self.completed_phases) / max(1, len(self.definition.phases)), 1)

    def elapsed(self, now: datetime) -> timedelta:
        """How long it took so far, or in all."""
        return (self.workflow.completed_at or now) - self.workflow.created_at


def start_workflow(
    connection: Connection, new: NewWorkflow, caller: Caller, clock: Clock, *, request_id: str = ""
) -> Standing:
    """Starts a workflow. Raises InvalidArgument, TemplateNotFound or BuildExists."""
    faults = [
        *json_faults("requirements", new.requirements, MAX_RESULT_BYTES),
        *json_faults("metadata", new.metadata, MAX_BYTES),
    ]
    if faults:
        raise InvalidArgument.of(faults)
    definition, now = get_template(connection, name=new.template, version=None).definition, clock.now()
    workflow = Workflow(
        **vars(new) | {"user_id": new.user_id or caller.agent_id},
        id=new_id(),
        template_version=definition.version,
        state=definition.initial_state,
        status=WorkflowStatus.IN_PROGRESS,
        retries=0,
        error_reason="",
        version=1,
        started_by=caller.agent_id,
        created_at=now,
        updated_at=now,
        completed_at=None,
        deadline=definition.state(definition.initial_state).deadline(now),
        traceparent=telemetry.traceparent(),
    )
    if not store.add_workflow(connection, workflow):
        raise BuildExists(new.build_id)
    event = _event(workflow, WorkflowEventType.WORKFLOW_STARTED, caller, from_state="")
    record.add_event(connection, event)
    tell(connection, None, workflow, event, clock, request_id=request_id)
    runs.ask_for(connection, workflow, definition, None, caller, clock)
    return Standing(workflow, definition, ())


def get_workflow(connection: Connection, workflow_id: str) -> Standing:
    """How a workflow stands. Raises WorkflowNotFound."""
    workflow = store.find_workflow(connection, workflow_id)
    if workflow is None:
        raise WorkflowNotFound(workflow_id)
    return _standings(connection, [workflow])[0]


def list_workflows(
    connection: Connection, wanted: WorkflowFilter, *, limit: int, before_id: str | None
) -> list[Standing]:
    """Up to `limit` workflows, newest first, with smaller ids than `before_id`."""
    return _standings(connection, store.list_workflows(connection, wanted, limit=limit, before_id=before_id))


def get_history(connection: Connection, workflow_id: str, limit: int = _SHOWN_HANDOFFS) -> tuple[int, list[Handoff]]:
    """How many hand-offs a workflow has, and the newest of them, oldest first. Raises WorkflowNotFound."""
    _require(connection, workflow_id)
    return (
        handoffs.count_handoffs(connection, workflow_id=workflow_id),
        handoffs.newest_handoffs(connection, workflow_id, limit),
    )


def list_events(connection: Connection, workflow_id: str, *, limit: int, before: int | None) -> list[WorkflowEvent]:
    """Up to `limit` events, newest first. Raises WorkflowNotFound."""
    _require(connection, workflow_id)
    return record.list_events(connection, workflow_id, limit=limit, before=before)


def get_stats(connection: Connection, project_id: str) -> ProjectStats:
    """A project in numbers."""
    return ProjectStats(
        by_status=store.count_by_status(connection, project_id),
        average_seconds=store.average_seconds(connection, project_id),
        failure_point=handoffs.most_common_failure(connection, project_id),
        handoffs=handoffs.count_handoffs(connection, project_id=project_id),
        overdue=store.count_overdue(connection, project_id),
    )


def cancel_workflow(
    connection: Connection, workflow_id: str, reason: str, caller: Caller, clock: Clock, *, request_id: str = ""
) -> Standing:
    """Calls a workflow off; one that was called off stays as it is. Raises WorkflowNotFound or WorkflowEnded."""
    before = lock(connection, workflow_id)
    if before.status is WorkflowStatus.COMPLETE:
        raise WorkflowEnded(workflow_id, before.status)
    if before.status is not WorkflowStatus.CANCELED:
        now = clock.now()
        after = replace(
            before,
            status=WorkflowStatus.CANCELED,
            completed_at=now,
            updated_at=now,
            version=before.version + 1,
            deadline=None,
            is_overdue=False,
            traceparent=telemetry.traceparent(),
        )
        store.save_workflow(connection, after)
        telemetry.link(before.traceparent)
        definition = get_template(connection, name=before.template, version=before.template_version).definition
        runs.withdraw(connection, before, definition, clock, reason=_CALLED_OFF, is_done=False)
        handoffs.expire_offered(connection, workflow_id, _CALLED_OFF, now)
        event = _event(
            after, WorkflowEventType.WORKFLOW_CANCELED, caller, from_state=before.state, data={"reason": reason}
        )
        record.add_event(connection, event)
        tell(connection, before, after, event, clock, request_id=request_id)
    return get_workflow(connection, workflow_id)


def lock(connection: Connection, workflow_id: str) -> Workflow:
    """A workflow that nobody else changes before this transaction ends. Raises WorkflowNotFound."""
    workflow = store.lock_workflow(connection, workflow_id)
    if workflow is None:
        raise WorkflowNotFound(workflow_id)
    return workflow


def _require(connection: Connection, workflow_id: str) -> None:
    if store.find_workflow(connection, workflow_id) is None:
        raise WorkflowNotFound(workflow_id)


def _standings(connection: Connection, workflows: list[Workflow]) -> list[Standing]:
    wanted = {(workflow.template, workflow.template_version) for workflow in workflows}
    definitions = {
        (name, version): get_template(connection, name=name, version=version).definition for name, version in wanted
    }
    done = record.completed_phases(connection, [workflow.id for workflow in workflows])
    return [
        Standing(
            workflow,
            definition,
            tuple(phase for phase in definition.phases if phase in done[workflow.id]),
        )
        for workflow in workflows
        for definition in [definitions[workflow.template, workflow.template_version]]
    ]


def _event(
    workflow: Workflow, event_type: WorkflowEventType, caller: Caller, *, from_state: str, data: Any = None
) -> WorkflowEvent:
    return WorkflowEvent(
        workflow_id=workflow.id,
        sequence=workflow.version,
        event_type=event_type,
        triggered_by=caller.agent_id,
        role=caller.role,
        from_state=from_state,
        to_state=workflow.state,
        data=data or {},
        occurred_at=workflow.updated_at,
        trace_id=telemetry.trace_id(),
    )
