"""Hand-offs, as rows."""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, insert, select, update

from services.workflows.models.template import TransitionKind
from services.workflows.models.workflow import Handoff, HandoffFilter, HandoffStatus, WorkflowStatus
from services.workflows.store.tables import handoffs, workflows


def add_handoff(connection: Connection, handoff: Handoff) -> None:
    """Stores a hand-off."""
    connection.execute(insert(handoffs).values(asdict(handoff)))


def find_handoff(connection: Connection, handoff_id: str) -> Handoff | None:
    """One hand-off by its id."""
    row = connection.execute(select(handoffs).where(handoffs.c.id == handoff_id)).one_or_none()
    return None if row is None else _handoff(row)


def newest_handoff(connection: Connection, workflow_id: str) -> Handoff | None:
    """By which a workflow came into the state that it is in; None while it is where it began."""
    found = newest_handoffs(connection, workflow_id, 1)
    return found[0] if found else None


def newest_handoffs(connection: Connection, workflow_id: str, limit: int) -> list[Handoff]:
    """The newest hand-offs of a workflow, the oldest of them first."""
    query = select(handoffs).where(handoffs.c.workflow_id == workflow_id).order_by(handoffs.c.id.desc()).limit(limit)
    return [_handoff(row) for row in reversed(connection.execute(query).all())]


def list_handoffs(connection: Connection, wanted: HandoffFilter, *, limit: int, before_id: str | None) -> list[Handoff]:
    """Up to `limit` hand-offs, newest first, with smaller ids than `before_id`."""
    query = select(handoffs).where(*_conditions(wanted)).order_by(handoffs.c.id.desc()).limit(limit)
    if before_id is not None:
        query = query.where(handoffs.c.id < before_id)
    return [_handoff(row) for row in connection.execute(query)]


def count_handoffs(connection: Connection, *, workflow_id: str = "", project_id: str = "") -> int:
    """How many hand-offs a workflow, or a project, has."""
    query = select(func.count()).select_from(handoffs)
    if workflow_id:
        query = query.where(handoffs.c.workflow_id == workflow_id)
    else:
        query = query.join(workflows, workflows.c.id == handoffs.c.workflow_id)
        query = query.where(workflows.c.project_id == project_id)
    return connection.execute(query).scalar_one()


def most_common_failure(connection: Connection, project_id: str) -> str:
    """The state of which the most workflows of a project failed; empty when none did."""
    query = (
        select(handoffs.c.from_state)
        .join(workflows, workflows.c.id == handoffs.c.workflow_id)
        .where(workflows.c.project_id == project_id, handoffs.c.kind == TransitionKind.ERROR)
        .group_by(handoffs.c.from_state)
        .order_by(func.count().desc(), handoffs.c.from_state)
        .limit(1)
    )
    return connection.execute(query).scalar_one_or_none() or ""


def decide_handoff(connection: Connection, handoff: Handoff) -> None:
    """Stores what has become of a hand-off whose workflow is locked."""
    values = {name: getattr(handoff, name) for name in ("status", "decided_by", "decided_at", "reason")}
    connection.execute(update(handoffs).where(handoffs.c.id == handoff.id).values(values))


def expire_offered(connection: Connection, workflow_id: str, reason: str, now: datetime) -> None:
    """Lets what is offered of a workflow that is locked be offered no more."""
    offered = (handoffs.c.workflow_id == workflow_id, handoffs.c.status == HandoffStatus.OFFERED)
    values = {"status": HandoffStatus.EXPIRED, "reason": reason, "decided_at": now}
    connection.execute(update(handoffs).where(*offered).values(values))


def late_handoffs(connection: Connection, now: datetime, limit: int) -> list[tuple[str, str]]:
    """Up to `limit` hand-offs that nobody has accepted in time, longest late first: the ids of them and their
    workflows."""
    query = (
        select(handoffs.c.id, handoffs.c.workflow_id)
        .where(handoffs.c.status == HandoffStatus.OFFERED, handoffs.c.ack_deadline <= now)
        .order_by(handoffs.c.ack_deadline)
        .limit(limit)
    )
    return [(row.id, row.workflow_id) for row in connection.execute(query)]


def _conditions(wanted: HandoffFilter) -> Iterator[ColumnElement[bool]]:
    for name in ("to_role", "workflow_id"):
        if value := getattr(wanted, name):
            yield handoffs.c[name] == value
    if wanted.statuses:
        yield handoffs.c.status.in_(wanted.statuses)


def _handoff(row: Row[Any]) -> Handoff:
    fields = row._asdict()
    return Handoff(
        **fields
        | {
            "kind": TransitionKind(fields["kind"]),
            "status": HandoffStatus(fields["status"]),
            "came_from": WorkflowStatus(fields["came_from"]),
        }
    )
