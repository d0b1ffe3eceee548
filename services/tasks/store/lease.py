"""Leases: held, renewed, taken away."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Connection,
    Integer,
    Row,
    Select,
    Update,
    bindparam,
    func,
    select,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError

from services.chassis.columns import Id, Json, Timestamp
from services.chassis.database_errors import waited_in_vain
from services.tasks.models.run import LEASE, ApprovalState, Lease, RunError, RunStatus
from services.tasks.store import batch
from services.tasks.store.batch import per_engine
from services.tasks.store.budget import ANY_COUNTED
from services.tasks.store.line import hold_free_lines_of, hold_lines_of
from services.tasks.store.rows import error_to_json
from services.tasks.store.tables import runs

# All but what is large: what decides over how a run goes on.
HELD = [
    runs.c[name]
    for name in (
        "id",
        "attempt",
        "lease_token",
        "role",
        "concurrency_key",
        "started_at",
        "retries",
        "max_retries",
        "backoff_strategy",
        "crashes",
        "cancel_requested_at",
        "error",
    )
]
_POSTPONED: batch.Columns = {"id": Id(), "due_at": Timestamp(), "error": Json, "retries": Integer()}
_wait_briefly = text("SET LOCAL lock_timeout = '1s'")
_FREE = {"lease_token": None, "lease_owner": None, "lease_expires_at": None}


@dataclass(frozen=True)
class Postponed:
    """A run that goes on later."""

    run_id: str
    due_at: datetime
    error: RunError
    retries: int
    """How many of its own retries that costs it."""


def depth_in_progress(connection: Connection, run_id: str) -> int | None:
    """How many events and runs led to a run that somebody works on; None when nobody does."""
    return connection.execute(
        select(func.coalesce(runs.c.event_depth, 0)).where(runs.c.id == run_id, runs.c.lease_token.is_not(None))
    ).scalar_one_or_none()


def lock_held(connection: Connection, leases: Collection[Lease], *, to_end: bool) -> dict[Lease, Row[Any]]:
    """The runs that are still held, by those of the leases that hold them, locked in one order.

    Whoever wants to end a lease, and not only to extend it, says so, for that changes the run's line.
    """
    batch.use_indexes(connection)
    run_ids = {lease.run_id for lease in leases}
    if to_end:
        hold_lines_of(connection, run_ids)
    rows = connection.execute(_lock(connection), batch.ids(connection, run_ids))
    return _by_lease(leases, rows)


def lock_to_extend(connection: Connection, leases: Collection[Lease]) -> tuple[dict[Lease, Row[Any]], set[Lease]]:
    """The runs that are still held, by those of the leases that hold them, and the leases whose runs are not to be had.

    Who has one of these is waited for, a second at most: then all but these are locked, in one order as ever.
    """
    batch.use_indexes(connection)
    ids = batch.ids(connection, {lease.run_id for lease in leases})
    try:
        with connection.begin_nested():
            if batch.is_postgres(connection):
                connection.execute(_wait_briefly)
            return _by_lease(leases, connection.execute(_lock(connection), ids)), set()
    except DBAPIError as error:
        if not waited_in_vain(error):
            raise
    held = _by_lease(leases, connection.execute(_lock_free(connection), ids))
    seen = _by_lease(leases, connection.execute(_see(connection), ids))
    return held, seen.keys() - held.keys()


def _by_lease(leases: Collection[Lease], rows: Iterable[Row[Any]]) -> dict[Lease, Row[Any]]:
    held = {Lease(row.id, row.attempt, row.lease_token or ""): row for row in rows}
    return {lease: held[lease] for lease in dict.fromkeys(leases) if lease in held}


def lock_expired(connection: Connection, *, now: datetime, limit: int) -> Sequence[Row[Any]]:
    """Runs whose lease has ended, longest first; those that are locked elsewhere, or whose line is, are passed over.

    Nobody is waited for: whoever stands still with a lock keeps one line back, and not the others.
    """
    batch.use_indexes(connection)
    expired = connection.scalars(_expired, {"now": now, "limit": limit}).all()
    free = hold_free_lines_of(connection, expired)
    if not free:
        return []
    return connection.execute(_lock_expired(connection), batch.ids(connection, free) | {"now": now}).all()


def extend(connection: Connection, run_ids: Iterable[str], now: datetime) -> datetime:
    """Gives held runs another full lease; answers its end."""
    expires_at = now + LEASE
    connection.execute(_extend(connection), batch.ids(connection, run_ids) | {"expires_at": expires_at})
    return expires_at


def give_back(connection: Connection, run_ids: Sequence[str], *, crashed: bool, now: datetime) -> None:
    """Takes the leases away, so that the runs wait for others; a crash is counted."""
    if run_ids:
        connection.execute(
            _give_back(connection), batch.ids(connection, run_ids) | {"crashed": int(crashed), "now": now}
        )


def suspend(connection: Connection, run_id: str, now: datetime) -> Row[Any]:
    """Takes a run, leased or not, out of the queue until an approval is decided; answers what is known of it."""
    awaiting = {
        "reported_status": RunStatus.AWAITING_APPROVAL.value,
        "approval_state": ApprovalState.PENDING.value,
        "approver": "",
        "approval_note": "",
    }
    suspended = update(runs).where(runs.c.id == run_id).values(**_FREE, **awaiting, updated_at=now)
    names = ("id", "task_id", "task", "created_by", "role", "concurrency_key", "traceparent", "event_depth")
    known = (runs.c[name] for name in names)
    return connection.execute(suspended.returning(*known)).one()


def go_on(
    connection: Connection, run_id: str, state: ApprovalState, *, approver: str, note: str, now: datetime
) -> None:
    """Puts a run that was suspended back into the queue, whatever was decided: its worker acts on it."""
    decided = {"reported_status": None, "approval_state": state.value, "approver": approver, "approval_note": note}
    connection.execute(update(runs).where(runs.c.id == run_id).values(**decided, updated_at=now))


def is_held(connection: Connection, lease: Lease) -> bool:
    """Whether the lease holds its run at this moment."""
    same = (runs.c.id == lease.run_id, runs.c.lease_token == lease.token, runs.c.attempt == lease.attempt)
    return connection.execute(select(runs.c.id).where(*same)).one_or_none() is not None


def postpone(connection: Connection, postponed: Sequence[Postponed], now: datetime) -> None:
    """Takes the leases away, so that each run waits until it is due again; its error is kept with it meanwhile."""
    if postponed:
        rows = ((run.run_id, run.due_at, error_to_json(run.error), run.retries) for run in postponed)
        connection.execute(_postpone(connection), batch.rows(connection, _POSTPONED, rows) | {"now": now})


_expired = (
    select(runs.c.id)
    .where(runs.c.lease_token.is_not(None), runs.c.lease_expires_at < bindparam("now", type_=Timestamp()))
    .order_by(runs.c.lease_expires_at)
    .limit(bindparam("limit", type_=Integer()))
)


def _those(for_postgres: bool) -> Select[Any]:
    return (
        select(*HELD, runs.c.task_id, runs.c.created_by, ANY_COUNTED)
        .where(batch.among(runs.c.id, for_postgres))
        .order_by(runs.c.id)
    )


_see = per_engine(_those)


@per_engine
def _lock(for_postgres: bool) -> Select[Any]:
    return _those(for_postgres).with_for_update()


@per_engine
def _lock_free(for_postgres: bool) -> Select[Any]:
    return _those(for_postgres).with_for_update(skip_locked=True)


@per_engine
def _lock_expired(for_postgres: bool) -> Select[Any]:
    return (
        select(*HELD)
        .where(
            batch.among(runs.c.id, for_postgres),
            runs.c.lease_token.is_not(None),
            runs.c.lease_expires_at < bindparam("now", type_=Timestamp()),
        )
        .with_for_update(skip_locked=True)
    )


@per_engine
def _extend(for_postgres: bool) -> Update:
    return (
        update(runs)
        .where(batch.among(runs.c.id, for_postgres))
        .values(lease_expires_at=bindparam("expires_at", type_=Timestamp()))
    )


@per_engine
def _give_back(for_postgres: bool) -> Update:
    return (
        update(runs)
        .where(batch.among(runs.c.id, for_postgres))
        .values(
            **_FREE,
            crashes=runs.c.crashes + bindparam("crashed", type_=Integer()),
            updated_at=bindparam("now", type_=Timestamp()),
        )
    )


@per_engine
def _postpone(for_postgres: bool) -> Update:
    given = batch.given(_POSTPONED, for_postgres)
    return (
        update(runs)
        .where(runs.c.id == given.c.id)
        .values(
            **_FREE,
            retries=runs.c.retries + given.c.retries,
            due_at=given.c.due_at,
            error=given.c.error,
            updated_at=bindparam("now", type_=Timestamp()),
        )
    )
