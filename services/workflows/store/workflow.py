"""Workflows, as rows."""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, Row, func, select, type_coerce, update

from services.chassis.upsert import upsert
from services.workflows.models.workflow import Workflow, WorkflowFilter, WorkflowStatus
from services.workflows.store.tables import workflows

_CHANGING = (
    "state",
    "status",
    "retries",
    "error_reason",
    "version",
    "updated_at",
    "completed_at",
    "deadline",
    "is_overdue",
    "traceparent",
)


def add_workflow(connection: Connection, workflow: Workflow) -> bool:
    """Stores a new workflow, unless there is one of the same build; says whether."""
    row = upsert(connection, workflows).values(asdict(workflow)).on_conflict_do_nothing()
    return connection.execute(row.returning(workflows.c.id)).one_or_none() is not None


def find_workflow(connection: Connection, workflow_id: str) -> Workflow | None:
    """One workflow by its id."""
    return _one(connection.execute(select(workflows).where(workflows.c.id == workflow_id)).one_or_none())


def lock_workflow(connection: Connection, workflow_id: str) -> Workflow | None:
    """A workflow that nobody else changes before this transaction ends."""
    query = select(workflows).where(workflows.c.id == workflow_id).with_for_update()
    return _one(connection.execute(query).one_or_none())


def save_workflow(connection: Connection, workflow: Workflow) -> None:
    """Stores what has been changed of a workflow that is locked."""
    values = {name: getattr(workflow, name) for name in _CHANGING}
    connection.execute(update(workflows).where(workflows.c.id == workflow.id).values(values))


def list_workflows(
    connection: Connection, wanted: WorkflowFilter, *, limit: int, before_id: str | None
) -> list[Workflow]:
    """Up to `limit` workflows, newest first, with smaller ids than `before_id`."""
    query = select(workflows).where(*_conditions(wanted)).order_by(workflows.c.id.desc()).limit(limit)
    if before_id is not None:
        query = query.where(workflows.c.id < before_id)
    return [_workflow(row) for row in connection.execute(query)]


def lock_overdue(connection: Connection, now: datetime, limit: int) -> list[Workflow]:
    """Up to `limit` workflows that are past their deadline, of which nobody knows yet, locked; those that others have
    locked are left to a later round."""
    query = select(workflows).where(workflows.c.deadline <= now, ~workflows.c.is_overdue)
    query = query.order_by(workflows.c.deadline).limit(limit).with_for_update(skip_locked=True)
    return [_workflow(row) for row in connection.execute(query)]


def count_overdue(connection: Connection, project_id: str) -> int:
    """How many workflows of a project are past their deadline."""
    theirs = (workflows.c.project_id == project_id, workflows.c.is_overdue)
    return connection.execute(select(func.count()).select_from(workflows).where(*theirs)).scalar_one()


def count_by_status(connection: Connection, project_id: str) -> dict[WorkflowStatus, int]:
    """How many workflows of a project there are of each status."""
    query = select(workflows.c.status, func.count()).where(workflows.c.project_id == project_id)
    return {WorkflowStatus(status): count for status, count in connection.execute(query.group_by(workflows.c.status))}


def average_seconds(connection: Connection, project_id: str) -> float | None:
    """How long the complete workflows of a project took on the average; None when none is."""
    theirs = (workflows.c.project_id == project_id, workflows.c.status == WorkflowStatus.COMPLETE)
    average = connection.execute(select(func.avg(_seconds(connection))).where(*theirs)).scalar_one()
    return None if average is None else float(average)


def _seconds(connection: Connection) -> ColumnElement[Any]:
    if connection.dialect.name == "postgresql":
        return func.extract("epoch", workflows.c.completed_at - workflows.c.created_at)
    ended, began = (type_coerce(workflows.c[name], BigInteger()) for name in ("completed_at", "created_at"))
    return (ended - began) / 1_000_000.0


def _conditions(wanted: WorkflowFilter) -> Iterator[ColumnElement[bool]]:
    for name in ("project_id", "state", "build_id"):
        if value := getattr(wanted, name):
            yield workflows.c[name] == value
    if wanted.statuses:
        yield workflows.c.status.in_(wanted.statuses)
    if wanted.is_overdue is not None:
        yield workflows.c.is_overdue if wanted.is_overdue else ~workflows.c.is_overdue


def _one(row: Row[Any] | None) -> Workflow | None:
    return None if row is None else _workflow(row)


def _workflow(row: Row[Any]) -> Workflow:
    fields = row._asdict()
    return Workflow(**fields | {"status": WorkflowStatus(fields["status"])})
