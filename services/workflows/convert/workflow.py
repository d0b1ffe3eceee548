"""Workflows, as messages."""

from datetime import datetime, timedelta

from baton.workflows.v1 import workflow_pb2
from baton.workflows.v1 import workflow_service_pb2 as pb

from services.chassis.enums import prefix
from services.chassis.structs import from_struct, to_struct
from services.chassis.timestamps import to_timestamp
from services.workflows.convert.handoff import handoff_message
from services.workflows.models.workflow import (
    Advance,
    Handoff,
    NewWorkflow,
    ProjectStats,
    WorkflowEvent,
    WorkflowFilter,
    WorkflowStatus,
)
from services.workflows.operations.moving import Moved
from services.workflows.operations.workflow import Standing

_DEFAULT_TEMPLATE = "build"
_STATUS = prefix("WorkflowStatus")


def new_workflow(request: pb.StartWorkflowRequest) -> NewWorkflow:
    """What the caller wants to start."""
    return NewWorkflow(
        build_id=request.build_id,
        project_id=request.project_id,
        user_id=request.user_id,
        template=request.template or _DEFAULT_TEMPLATE,
        requirements=from_struct(request.requirements),
        metadata=from_struct(request.metadata),
    )


def workflow_filter(request: pb.ListWorkflowsRequest) -> WorkflowFilter:
    """Which workflows the caller wants to see."""
    names = (workflow_pb2.WorkflowStatus.Name(number) for number in request.status)
    statuses = (WorkflowStatus(name.removeprefix(_STATUS).lower()) for name in names)
    return WorkflowFilter(
        project_id=request.project_id,
        statuses=tuple(dict.fromkeys(statuses)),
        state=request.current_state.lower(),
        build_id=request.build_id,
        is_overdue=request.overdue if request.HasField("overdue") else None,
    )


def advance(request: pb.AdvanceWorkflowRequest) -> Advance:
    """What the caller says is done."""
    return Advance(
        role=request.role,
        completed_state=request.completed_state,
        result=from_struct(request.phase_result),
        next_state=request.next_state,
        version=request.version if request.HasField("version") else None,
    )


def workflow_message(standing: Standing) -> workflow_pb2.Workflow:
    """A workflow as it is answered."""
    workflow = standing.workflow
    return workflow_pb2.Workflow(
        workflow_id=workflow.id,
        build_id=workflow.build_id,
        project_id=workflow.project_id,
        user_id=workflow.user_id,
        template=workflow.template,
        template_version=workflow.template_version,
        current_state=workflow.state,
        current_role=standing.definition.state(workflow.state).owner_role,
        status=_status(workflow.status),
        progress=standing.progress,
        completed_phases=standing.completed_phases,
        retries=workflow.retries,
        error_reason=workflow.error_reason,
        requirements=to_struct(workflow.requirements),
        metadata=to_struct(workflow.metadata),
        version=workflow.version,
        created_at=to_timestamp(workflow.created_at),
        updated_at=to_timestamp(workflow.updated_at),
        completed_at=to_timestamp(workflow.completed_at),
        started_by=workflow.started_by,
        deadline=to_timestamp(workflow.deadline),
        overdue=workflow.is_overdue,
    )


def started_message(standing: Standing) -> pb.StartWorkflowResponse:
    """The answer to start."""
    workflow, definition = standing.workflow, standing.definition
    state = definition.state(workflow.state)
    following = [move.to_state for move in definition.moves(state.name)]
    return pb.StartWorkflowResponse(
        workflow_id=workflow.id,
        build_id=workflow.build_id,
        initial_state=state.name,
        status="started",
        current_role=state.owner_role,
        next_role=definition.next_role(following[0]) if following else "",
        instructions=state.description,
    )


def advanced_message(moved: Moved) -> pb.AdvanceWorkflowResponse:
    """The answer to advance."""
    return pb.AdvanceWorkflowResponse(
        workflow_id=moved.workflow.id,
        previous_state=moved.handoff.from_state,
        new_state=moved.workflow.state,
        next_role=moved.handoff.to_role,
        handoff_data=to_struct(moved.handoff.data),
        is_complete=moved.workflow.status is WorkflowStatus.COMPLETE,
        state_description=moved.definition.state(moved.workflow.state).description,
        version=moved.workflow.version,
        handoff_id=moved.handoff.id,
    )


def status_message(standing: Standing, handoffs: list[Handoff], now: datetime) -> pb.GetWorkflowStatusResponse:
    """How a workflow stands, as it is answered."""
    workflow, definition = standing.workflow, standing.definition
    expected = None
    if not workflow.status.is_final:
        expected = pb.NextExpectations(
            role=definition.next_role(workflow.state),
            task=definition.state(workflow.state).description,
            deadline=to_timestamp(workflow.deadline),
        )
    return pb.GetWorkflowStatusResponse(
        workflow_id=workflow.id,
        build_id=workflow.build_id,
        project_id=workflow.project_id,
        current_state=workflow.state,
        current_role=definition.state(workflow.state).owner_role,
        progress=standing.progress,
        completed_phases=standing.completed_phases,
        handoff_history=map(handoff_message, handoffs),
        elapsed_time=_hours(standing.elapsed(now)),
        created_at=to_timestamp(workflow.created_at),
        updated_at=to_timestamp(workflow.updated_at),
        completed_at=to_timestamp(workflow.completed_at),
        next_expectations=expected,
        status=_status(workflow.status),
    )


def retry_message(moved: Moved, reason: str) -> pb.RequestRetryResponse:
    """The answer to who has sent work back."""
    return pb.RequestRetryResponse(
        retry_requested=True,
        previous_state=moved.workflow.state,
        reason=reason,
        timestamp=to_timestamp(moved.event.occurred_at),
    )


def rolled_back_message(moved: Moved, reason: str) -> pb.RollBackWorkflowResponse:
    """The answer to who has set a workflow back."""
    return pb.RollBackWorkflowResponse(
        rollback_successful=True,
        new_state=moved.workflow.state,
        reason=reason,
        rollback_record=event_message(moved.event),
    )


def event_message(event: WorkflowEvent) -> workflow_pb2.WorkflowEvent:
    """An event as it is answered."""
    return workflow_pb2.WorkflowEvent(
        sequence=event.sequence,
        event_type=workflow_pb2.WorkflowEventType.Value(f"WORKFLOW_EVENT_TYPE_{event.event_type.name}"),
        triggered_by=event.triggered_by,
        role=event.role,
        from_state=event.from_state,
        to_state=event.to_state,
        event_data=to_struct(event.data),
        timestamp=to_timestamp(event.occurred_at),
        trace_id=event.trace_id,
    )


def stats_message(stats: ProjectStats) -> pb.GetProjectStatsResponse:
    """A project in numbers, as it is answered."""
    counts = {status: stats.by_status.get(status, 0) for status in WorkflowStatus}
    return pb.GetProjectStatsResponse(
        total_workflows=stats.total,
        completed=counts[WorkflowStatus.COMPLETE],
        in_progress=counts[WorkflowStatus.IN_PROGRESS],
        failed=counts[WorkflowStatus.FAILED],
        canceled=counts[WorkflowStatus.CANCELED],
        average_duration=stats.average_seconds,
        success_rate=None if stats.success_rate is None else round(stats.success_rate, 1),
        most_common_failure_point=stats.failure_point,
        overdue=stats.overdue,
        average_handoffs=round(stats.handoffs / stats.total, 2) if stats.total else None,
    )


def _status(status: WorkflowStatus) -> workflow_pb2.WorkflowStatus.ValueType:
    return workflow_pb2.WorkflowStatus.Value(_STATUS + status.name)


def _hours(elapsed: timedelta) -> str:
    minutes = max(0, int(elapsed.total_seconds())) // 60
    return f"{minutes // 60}h {minutes % 60}m"
