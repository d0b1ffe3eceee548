"""What is told of questions: that somebody is asked, and what the answer is."""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row

from services.tasks.store import approval as approval_store
from services.tasks.store.domain_event import DomainEvent, publish


def tell_approval(connection: Connection, verb: str, run: Row[Any], approval_id: str, now: datetime) -> None:
    """Publishes what has become of a question (`requested`, `approved`, ...) about a run, of which `created_by`,
    `traceparent` and `event_depth` are needed.

    The action stays where it can be read by those who may.
    """
    approval = approval_store.get_approval(connection, approval_id)
    assert approval is not None, f"approval {approval_id} has vanished while its run was locked"
    payload = {
        "approval_id": approval.id,
        "run_id": approval.run_id,
        "task_id": approval.task_id,
        "task": approval.task,
        "step_id": approval.step_id,
        "approver_role": approval.approver_role,
        "created_by": run.created_by,
        "requested_by": approval.requested_by,
        "status": approval.status.value,
        "decided_by": approval.decided_by,
    }
    publish(connection, [DomainEvent(f"approval.{verb}", payload, run.traceparent, (run.event_depth or 0) + 1)], now)
