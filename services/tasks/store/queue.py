"""The live runs: queued, leased, renewed, reported, rescued. Every statement serves a whole batch."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Text, case, cast, delete, func, insert, literal, select, update

from services.chassis.columns import Timestamp
from services.chassis.upsert import upsert
from services.tasks.models.run import LEASE, Lease, LeasedRun, NewRun, RunError, RunStatus, RunStep
from services.tasks.store.rows import error_to_json, step_from_row
from services.tasks.store.tables import run_history, run_steps, runs

# Payloads of 1 MiB each, of which a worker is answered few at a time, are not all read first.
MAX_CLAIMED_CHARACTERS = 4 * 1024 * 1024
_KEPT = [column.name for column in run_history.c if column.name in runs.c]


@dataclass(frozen=True)
class Ending:
    """How a live run becomes history."""

    row: Row[Any]
    status: RunStatus
    output: dict[str, Any] | None
    error: RunError | None


def add_runs(connection: Connection, new: Sequence[NewRun], now: datetime) -> None:
    """Queues runs."""
    if new:
        fixed = {"attempt": 0, "crashes": 0, "created_at": now, "updated_at": now}
        connection.execute(insert(runs), [asdict(run) | fixed for run in new])


def claim(connection: Connection, *, owner: str, token: str, limit: int, now: datetime) -> list[LeasedRun]:
    """Leases up to `limit` due runs that nobody holds, most urgent first; rows locked elsewhere are passed over.

    They are fewer when their payloads are large: none is added once there are MAX_CLAIMED_CHARACTERS of JSON. One
    token serves the batch: with the run's id and attempt it proves one lease of one run.
    """
    due = _lock_due(connection, limit, now)
    if not due:
        return []
    leased = connection.execute(
        update(runs)
        .where(runs.c.id.in_(due))
        .values(
            attempt=runs.c.attempt + 1,
            lease_token=token,
            lease_owner=owner,
            lease_expires_at=now + LEASE,
            started_at=func.coalesce(runs.c.started_at, literal(now, Timestamp)),
            updated_at=now,
        )
        .returning(*runs.c)
    ).all()
    steps = _steps_of(connection, [row.id for row in leased if row.attempt > 1])
    urgency = sorted(leased, key=lambda row: (row.priority, row.due_at, row.id))
    return [_leased_run(row, steps[row.id]) for row in urgency]


def unclaim(connection: Connection, run_ids: Sequence[str]) -> None:
    """Undoes the claim of runs, in the transaction that claimed them: nobody has seen it."""
    if run_ids:
        connection.execute(
            update(runs)
            .where(runs.c.id.in_(run_ids))
            .values(
                attempt=runs.c.attempt - 1,
                lease_token=None,
                lease_owner=None,
                lease_expires_at=None,
                started_at=case((runs.c.attempt > 1, runs.c.started_at)),
            )
        )


def lock_held(connection: Connection, leases: Collection[Lease]) -> dict[Lease, Row[Any]]:
    """The runs that are still held, by those of the leases that hold them, locked in one order."""
    wanted, run_ids = set(leases), {lease.run_id for lease in leases}
    rows = connection.execute(select(runs).where(runs.c.id.in_(run_ids)).order_by(runs.c.id).with_for_update())
    held = {Lease(row.id, row.attempt, row.lease_token or ""): row for row in rows}
    return {lease: row for lease, row in held.items() if lease in wanted}


def extend(connection: Connection, run_ids: Iterable[str], now: datetime) -> datetime:
    """Gives held runs another full lease; answers its end."""
    expires_at = now + LEASE
    connection.execute(update(runs).where(runs.c.id.in_(list(run_ids))).values(lease_expires_at=expires_at))
    return expires_at


def add_steps(connection: Connection, steps: Sequence[tuple[str, RunStep]]) -> None:
    """Records finished steps by run id. A step that is recorded already stays as it is, unless it had failed."""
    if not steps:
        return
    rows = [_step_row(run_id, step) for run_id, step in steps]
    statement = upsert(connection, run_steps)
    replaced = {name: statement.excluded[name] for name in rows[0] if name not in ("run_id", "position")}
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[run_steps.c.run_id, run_steps.c.position],
            set_=replaced,
            where=run_steps.c.status == "failed",
        ),
        rows,
    )


def finish(connection: Connection, endings: Sequence[Ending], now: datetime) -> None:
    """Moves runs from the live table to the history."""
    if not endings:
        return
    connection.execute(delete(runs).where(runs.c.id.in_([ending.row.id for ending in endings])))
    connection.execute(insert(run_history), [_history_row(ending, now) for ending in endings])


def requeue(connection: Connection, run_ids: Sequence[str], *, crashed: bool, now: datetime) -> None:
    """Takes the leases away, so that the runs can be claimed at once; a crash is counted."""
    if run_ids:
        connection.execute(
            update(runs)
            .where(runs.c.id.in_(run_ids))
            .values(
                lease_token=None,
                lease_owner=None,
                lease_expires_at=None,
                crashes=runs.c.crashes + (1 if crashed else 0),
                updated_at=now,
            )
        )


def lock_expired(connection: Connection, *, now: datetime, limit: int) -> Sequence[Row[Any]]:
    """Runs whose lease has ended, longest first; those locked elsewhere are passed over."""
    return connection.execute(
        select(runs)
        .where(runs.c.lease_token.is_not(None), runs.c.lease_expires_at < now)
        .order_by(runs.c.lease_expires_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()


def _lock_due(connection: Connection, limit: int, now: datetime) -> list[str]:
    """The ids of what there is to claim, locked."""
    due = connection.execute(
        select(runs.c.id, func.length(cast(runs.c.payload, Text)))
        .where(runs.c.lease_token.is_(None), runs.c.due_at <= now)
        .order_by(runs.c.priority, runs.c.due_at, runs.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    run_ids, characters = [], 0
    for run_id, length in due:
        if characters >= MAX_CLAIMED_CHARACTERS:
            break
        run_ids.append(run_id)
        characters += length
    return run_ids


def _steps_of(connection: Connection, run_ids: Sequence[str]) -> Mapping[str, list[RunStep]]:
    steps: dict[str, list[RunStep]] = defaultdict(list)
    if run_ids:
        query = select(run_steps).where(run_steps.c.run_id.in_(run_ids)).order_by(run_steps.c.position)
        for row in connection.execute(query):
            steps[row.run_id].append(step_from_row(row))
    return steps


def _leased_run(row: Row[Any], steps: list[RunStep]) -> LeasedRun:
    return LeasedRun(
        lease=Lease(row.id, row.attempt, row.lease_token),
        expires_at=row.lease_expires_at,
        task_id=row.task_id,
        task=row.task,
        payload=row.payload,
        steps=steps,
        traceparent=row.traceparent,
        created_at=row.created_at,
    )


def _step_row(run_id: str, step: RunStep) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "position": step.position,
        "step_id": step.id,
        "uses": step.uses,
        "status": step.status,
        "attempt": step.attempt,
        "input_digest": step.input_digest,
        "output": step.output,
        "error": error_to_json(step.error),
        "started_at": step.started_at,
        "finished_at": step.finished_at,
        "duration_ms": step.duration_ms,
        "span_id": step.span_id,
    }


def _history_row(ending: Ending, now: datetime) -> dict[str, Any]:
    row = ending.row._mapping
    started_at: datetime = row["started_at"] or now
    return {name: row[name] for name in _KEPT} | {
        "status": ending.status,
        "finished_at": now,
        "duration_ms": int((now - started_at).total_seconds() * 1000),
        "output": ending.output,
        "error": error_to_json(ending.error),
        "updated_at": now,
    }
