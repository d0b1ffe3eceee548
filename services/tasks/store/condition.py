"""How far the probing of conditions has come, and what they told."""

from collections.abc import Collection, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from services.tasks.models.condition import Evaluation, ProbeLease, ProbeState
from services.tasks.models.occurrence import Outcome
from services.tasks.models.task import Task
from services.tasks.store import batch
from services.tasks.store.tables import conditions, evaluations, tasks
from services.tasks.store.task import task_from_row

_FREE = {"leased_at": None, "lease_token": None, "lease_owner": None}
_STATE = [
    conditions.c[name]
    for name in (
        "task_id", "next_probe_at", "evaluations", "evaluations_before", "leased_at", "lease_token", "last_holds",
        "last_fired_at",
    )
]  # fmt: skip


class DueProbe(NamedTuple):
    """A probe whose time has come, locked."""

    task: Task
    due_at: datetime
    evaluations: int


def begin(connection: Connection, task_id: str, next_probe_at: datetime | None) -> None:
    """Probes a task from then on, as if nothing was known of its condition; None is for not at all."""
    anew = {"next_probe_at": next_probe_at, "last_holds": None, "last_fired_at": None, **_FREE}
    statement: Any = (postgresql if batch.is_postgres(connection) else sqlite).insert(conditions)
    statement = statement.values(task_id=task_id, evaluations=0, evaluations_before=0, **anew)
    again = anew | {"evaluations_before": conditions.c.evaluations}
    connection.execute(statement.on_conflict_do_update(index_elements=[conditions.c.task_id], set_=again))


def restart(connection: Connection, task_id: str, next_probe_at: datetime | None) -> None:
    """Sets when a task is probed next, None for not at all; whoever probes it now is not listened to any more."""
    values = {"next_probe_at": next_probe_at, **_FREE}
    connection.execute(update(conditions).where(conditions.c.task_id == task_id).values(values))


def hasten(connection: Connection, task_id: str, latest: datetime) -> None:
    """Makes a task due at `latest`, unless it is so before, or is being probed."""
    later = (
        conditions.c.task_id == task_id,
        conditions.c.next_probe_at > latest,
        conditions.c.lease_token.is_(None),
    )
    connection.execute(update(conditions).where(*later).values(next_probe_at=latest))


def lock_due(connection: Connection, *, now: datetime, limit: int) -> list[DueProbe]:
    """Up to `limit` probes whose time has come, longest first; those locked elsewhere are passed over.

    They are read anew behind the lock: a task that changes now waits for it, and then takes back what was leased.
    """
    due = (
        select(conditions.c.task_id, conditions.c.next_probe_at, conditions.c.evaluations)
        .where(conditions.c.next_probe_at <= now)
        .order_by(conditions.c.next_probe_at, conditions.c.task_id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    rows = connection.execute(due).all()
    if not rows:
        return []
    found = connection.execute(select(tasks).where(tasks.c.id.in_([row.task_id for row in rows])))
    of_id = {row.id: task_from_row(row) for row in found}
    return [DueProbe(of_id[row.task_id], row.next_probe_at, row.evaluations) for row in rows]


def lease(connection: Connection, task_id: str, *, owner: str, token: str, now: datetime, until: datetime) -> None:
    """Gives a locked probe to a worker."""
    held = {"leased_at": now, "lease_token": token, "lease_owner": owner, "next_probe_at": until}
    connection.execute(update(conditions).where(conditions.c.task_id == task_id).values(held))


def lock_held(connection: Connection, leases: Collection[ProbeLease], now: datetime) -> dict[ProbeLease, ProbeState]:
    """The probes that are still held, by those of the leases that hold them, locked in one order."""
    task_ids = {lease.task_id for lease in leases}
    rows = connection.execute(
        select(*_STATE)
        .where(conditions.c.task_id.in_(task_ids), conditions.c.next_probe_at > now)
        .order_by(conditions.c.task_id)
        .with_for_update()
    )
    held = {ProbeLease(row.task_id, row.lease_token or ""): _state(row) for row in rows}
    return {lease: held[lease] for lease in dict.fromkeys(leases) if lease in held}


def settle(
    connection: Connection,
    evaluation: Evaluation,
    *,
    next_probe_at: datetime,
    last_holds: bool | None,
    last_fired_at: datetime | None,
    kept: int,
) -> None:
    """Stores what a locked probe told, ends its lease, and forgets all but the newest `kept` evaluations."""
    task_id = evaluation.task_id
    connection.execute(insert(evaluations).values(asdict(evaluation)))
    old = (evaluations.c.task_id == task_id, evaluations.c.number <= evaluation.number - kept)
    connection.execute(delete(evaluations).where(*old))
    values = {
        "next_probe_at": next_probe_at,
        "evaluations": evaluation.number,
        "last_holds": last_holds,
        "last_fired_at": last_fired_at,
        **_FREE,
    }
    connection.execute(update(conditions).where(conditions.c.task_id == task_id).values(values))


def get_state(connection: Connection, task_id: str) -> ProbeState | None:
    """How far the probing of a task has come; None for one that never waited for a condition."""
    row = connection.execute(select(*_STATE).where(conditions.c.task_id == task_id)).one_or_none()
    return None if row is None else _state(row)


def list_evaluations(
    connection: Connection, task_id: str, *, limit: int, before: int | None = None
) -> Sequence[Evaluation]:
    """Up to `limit` evaluations of a task, newest first, before the number `before`."""
    query = select(evaluations).where(evaluations.c.task_id == task_id)
    if before is not None:
        query = query.where(evaluations.c.number < before)
    rows = connection.execute(query.order_by(evaluations.c.number.desc()).limit(limit))
    return [_evaluation(row) for row in rows]


def _state(row: Row[Any]) -> ProbeState:
    return ProbeState(**row._asdict())


def _evaluation(row: Row[Any]) -> Evaluation:
    return Evaluation(**row._asdict() | {"outcome": Outcome(row.outcome) if row.outcome else None})
