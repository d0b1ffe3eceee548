"""What workflows leave behind: results of phases, and events, as rows. Only ever added to."""

from collections.abc import Collection
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from services.workflows.models.workflow import PhaseResult, WorkflowEvent, WorkflowEventType
from services.workflows.store.tables import phase_results, workflow_events


def add_result(connection: Connection, result: PhaseResult) -> None:
    """Stores what came of a phase."""
    connection.execute(insert(phase_results).values(asdict(result)))


def next_attempt(connection: Connection, workflow_id: str, phase: str) -> int:
    """How often a phase will have been done when it is done once more."""
    theirs = (phase_results.c.workflow_id == workflow_id, phase_results.c.phase == phase)
    return (connection.execute(select(func.max(phase_results.c.attempt)).where(*theirs)).scalar_one() or 0) + 1


def completed_phases(connection: Connection, workflow_ids: Collection[str]) -> dict[str, set[str]]:
    """The phases of each workflow that are done, and have not to be done again."""
    found: dict[str, set[str]] = {workflow_id: set() for workflow_id in workflow_ids}
    query = select(phase_results.c.workflow_id, phase_results.c.phase).where(
        phase_results.c.workflow_id.in_(workflow_ids), phase_results.c.superseded_at.is_(None)
    )
    for row in connection.execute(query):
        found[row.workflow_id].add(row.phase)
    return found


def supersede(connection: Connection, workflow_id: str, phases: Collection[str], now: datetime) -> None:
    """Notes that phases have to be done again."""
    current = (
        phase_results.c.workflow_id == workflow_id,
        phase_results.c.phase.in_(phases),
        phase_results.c.superseded_at.is_(None),
    )
    connection.execute(update(phase_results).where(*current).values(superseded_at=now))


def add_event(connection: Connection, event: WorkflowEvent) -> None:
    """Stores what happened."""
    connection.execute(insert(workflow_events).values(asdict(event)))


def list_events(connection: Connection, workflow_id: str, *, limit: int, before: int | None) -> list[WorkflowEvent]:
    """Up to `limit` events of a workflow, newest first, with smaller numbers than `before`."""
    query = select(workflow_events).where(workflow_events.c.workflow_id == workflow_id)
    if before is not None:
        query = query.where(workflow_events.c.sequence < before)
    query = query.order_by(workflow_events.c.sequence.desc()).limit(limit)
    return [_event(row) for row in connection.execute(query)]


def last_mover(connection: Connection, workflow_id: str) -> str:
    """The agent who was the last to do something about a workflow."""
    (newest,) = list_events(connection, workflow_id, limit=1, before=None)
    return newest.triggered_by


def _event(row: Row[Any]) -> WorkflowEvent:
    fields = row._asdict()
    return WorkflowEvent(**fields | {"event_type": WorkflowEventType(fields["event_type"])})
