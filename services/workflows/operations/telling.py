"""What is told of workflows, to the audit and to those who wait for events."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from services.chassis import outbox
from services.chassis.clock import Clock, instant_text
from services.workflows.models.workflow import Handoff, Workflow, WorkflowEvent, WorkflowEventType, WorkflowStatus
from services.workflows.store import tables

_ACTIONS: Mapping[WorkflowEventType, str] = {
    WorkflowEventType.WORKFLOW_STARTED: "workflow.start",
    WorkflowEventType.STATE_ADVANCED: "workflow.advance",
    WorkflowEventType.RETRY_REQUESTED: "workflow.retry",
    WorkflowEventType.ROLLED_BACK: "workflow.roll_back",
    WorkflowEventType.WORKFLOW_CANCELED: "workflow.cancel",
    WorkflowEventType.HANDOFF_ACCEPTED: "handoff.accept",
    WorkflowEventType.HANDOFF_REJECTED: "handoff.reject",
    WorkflowEventType.HANDOFF_EXPIRED: "handoff.expire",
    WorkflowEventType.REPORT_REFUSED: "workflow.refuse_report",
}
_TOPICS: Mapping[WorkflowEventType, str] = {
    WorkflowEventType.WORKFLOW_STARTED: "workflow.started",
    WorkflowEventType.STATE_ADVANCED: "workflow.advanced",
    WorkflowEventType.RETRY_REQUESTED: "workflow.retried",
    WorkflowEventType.ROLLED_BACK: "workflow.rolled_back",
    WorkflowEventType.WORKFLOW_CANCELED: "workflow.canceled",
    WorkflowEventType.HANDOFF_ACCEPTED: "workflow.handoff_accepted",
    WorkflowEventType.HANDOFF_REJECTED: "workflow.handoff_rejected",
    WorkflowEventType.HANDOFF_EXPIRED: "workflow.handoff_expired",
    WorkflowEventType.REPORT_REFUSED: "workflow.report_refused",
}
_OFFERED = "workflow.handoff_offered"
_ENDS: Mapping[WorkflowStatus, str] = {
    WorkflowStatus.COMPLETE: "workflow.completed",
    WorkflowStatus.FAILED: "workflow.failed",
}
_AUDITED = ("state", "status", "retries", "error_reason", "version")


def tell(
    connection: Connection,
    before: Workflow | None,
    after: Workflow,
    event: WorkflowEvent,
    clock: Clock,
    *,
    request_id: str = "",
) -> None:
    """Publishes what was done to a workflow, and what has become of it."""
    outbox.audit(
        connection,
        tables.outbox,
        clock,
        action=_ACTIONS[event.event_type],
        actor=event.triggered_by,
        resource=f"workflow/{after.id}",
        before=_audited(before) if before else None,
        after=_audited(after),
        note=str(event.data.get("reason", ""))[:2000],
        request_id=request_id,
    )
    topics = [_TOPICS[event.event_type]]
    if after.status in _ENDS and (before is None or before.status is not after.status):
        topics.append(_ENDS[after.status])
    for topic in topics:
        outbox.event(connection, tables.outbox, clock, topic=topic, payload=_published(after, event))


def tell_offered(connection: Connection, workflow: Workflow, handoff: Handoff, clock: Clock) -> None:
    """Publishes that somebody has something to accept."""
    deadline = instant_text(handoff.ack_deadline) if handoff.ack_deadline else None
    payload = about(workflow) | {
        "handoff_id": handoff.id,
        "from_role": handoff.from_role,
        "to_role": handoff.to_role,
        "to_state": handoff.to_state,
        "ack_deadline": deadline,
    }
    outbox.event(connection, tables.outbox, clock, topic=_OFFERED, payload=payload)


def _audited(workflow: Workflow) -> dict[str, Any]:
    return {name: getattr(workflow, name) for name in _AUDITED}


def _published(workflow: Workflow, event: WorkflowEvent) -> dict[str, Any]:
    """Without what was produced, which can hold what not every task should see."""
    return about(workflow) | {
        "from_state": event.from_state,
        "to_state": event.to_state,
        "role": event.role,
        "triggered_by": event.triggered_by,
    }


def about(workflow: Workflow) -> dict[str, Any]:
    """What every event about a workflow says."""
    return {
        "workflow_id": workflow.id,
        "build_id": workflow.build_id,
        "project_id": workflow.project_id,
        "template": workflow.template,
        "status": workflow.status.value,
        "version": workflow.version,
    }
