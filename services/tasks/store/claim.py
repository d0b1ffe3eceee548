"""The claim: which of the waiting runs are leased next."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    Connection,
    Integer,
    Row,
    Select,
    String,
    Update,
    bindparam,
    case,
    func,
    literal_column,
    or_,
    select,
    true,
    type_coerce,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import INTERVAL
from sqlalchemy.exc import IntegrityError

from services.chassis.columns import Id, Timestamp
from services.chassis.database_errors import TryAgain
from services.tasks.models.approval import Approval
from services.tasks.models.run import LEASE, Lease, LeasedRun, RunStep
from services.tasks.store import approval as approval_store
from services.tasks.store import batch
from services.tasks.store.batch import per_engine
from services.tasks.store.budget import ANY_BLOCKED
from services.tasks.store.line import AGING, HAS_KEY, LINE, PRIORITIES, WAITS, hold_overtaken, is_in, settle, urgency
from services.tasks.store.step import steps_of
from services.tasks.store.tables import runs

# Payloads of 1 MiB each, of which a worker is answered few at a time, are not all read first.
MAX_CLAIMED_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Claim:
    """What a claim brought."""

    runs: list[LeasedRun]
    contended: bool
    """Whether others claim the same runs right now: then it is worth looking again soon."""
    any_blocked: bool = False
    """Whether some agent or task has used up a budget."""


def claim(
    connection: Connection, *, owner: str, agent_id: str, token: str, role: str, limit: int, now: datetime
) -> Claim:
    """Leases up to `limit` due runs of a role that nobody holds, most urgent first.

    A run ages by one level of priority a minute. Of those with the same concurrency key the most urgent comes first,
    and none while the key is held; rows locked elsewhere are passed over. They are fewer when their payloads are
    large: none is added once there are MAX_CLAIMED_BYTES of JSON. One token serves the batch: with the run's id and
    attempt it proves one lease of one run.

    Raises TryAgain when a run of another role takes one of the keys at the same time.
    """
    batch.use_indexes(connection)
    due, contended = _lock_due(connection, role, limit, now)
    if not due:
        return Claim([], contended)
    lease = {"owner": owner, "agent_id": agent_id, "token": token, "expires_at": now + LEASE, "now": now}
    try:
        leased = connection.execute(_lease(connection), batch.ids(connection, [row.id for row in due]) | lease).all()
    except IntegrityError as error:
        raise TryAgain from error
    by_id = {row.id: row for row in leased}
    steps = steps_of(connection, [row.id for row in due if row.is_retry or by_id[row.id].attempt > 1])
    answers = approval_store.answers_of(connection, [run_id for run_id, row in by_id.items() if row.approval_state])
    runs_leased = (_leased_run(by_id[row.id], token, now, steps[row.id], answers[row.id], row) for row in due)
    return Claim(list(runs_leased), contended, bool(leased and leased[0].any_blocked))


def unclaim(connection: Connection, leased: Sequence[LeasedRun]) -> None:
    """Undoes the claim of runs, in the transaction that claimed them: nobody has seen it."""
    if leased:
        former = ((run.lease.run_id, run.former_agent_id) for run in leased)
        connection.execute(_unlease(connection), batch.rows(connection, _FORMER, former))


def _lock_due(connection: Connection, role: str, limit: int, now: datetime) -> tuple[list[Row[Any]], bool]:
    """What there is to claim, locked and in order; and whether others were faster with some of it."""
    found = connection.execute(_due(connection), {"role": role, "limit": limit, "now": now}).all()
    due = [row for row in found if row.id is not None]
    contended = bool(found) and len(due) < found[0].wanted
    due = sorted(_foremost_of_lines(connection, due, role, now), key=urgency)
    chosen, size = [], 0
    for row in due:
        if size >= MAX_CLAIMED_BYTES:
            break
        chosen.append(row)
        size += row.payload_size
    return chosen, contended


def _foremost_of_lines(connection: Connection, due: list[Row[Any]], role: str, now: datetime) -> list[Row[Any]]:
    """The same, with the most urgent of each line: others may have become due since its head became it."""
    heads = {(role, row.concurrency_key): row for row in due if row.is_followed}
    overtaken = hold_overtaken(connection, heads, now)
    if not overtaken:
        return due
    settle(connection, overtaken, now)
    anew = connection.execute(_heads(connection), batch.rows(connection, LINE, overtaken)).all()
    return [row for row in due if (role, row.concurrency_key) not in overtaken] + list(anew)


def _leased_run(
    row: Row[Any],
    token: str,
    now: datetime,
    steps: list[RunStep],
    approvals: list[Approval],
    due: Row[Any],
) -> LeasedRun:
    return LeasedRun(
        lease=Lease(row.id, row.attempt, token),
        expires_at=now + LEASE,
        task_id=row.task_id,
        task=row.task,
        payload=row.payload,
        steps=steps,
        traceparent=row.traceparent,
        created_at=row.created_at,
        started_at=row.started_at,
        created_by=row.created_by,
        approvals=approvals,
        event_id=row.event_id,
        former_agent_id=due.agent_id,
        priority=due.priority,
        waited=now - due.due_at,
    )


_FORMER: batch.Columns = {"id": Id(), "agent_id": Id()}
_SEEN = [
    *(runs.c[name] for name in ("id", "priority", "due_at", "concurrency_key", "payload_size", "agent_id")),
    # SQLite answers this wrongly where an UPDATE returns it.
    runs.c.retry_of.is_not(None).label("is_retry"),
]
_LEASED = [
    runs.c[name]
    for name in (
        "id",
        "attempt",
        "task_id",
        "task",
        "payload",
        "traceparent",
        "created_at",
        "started_at",
        "created_by",
        "approval_state",
        "event_id",
    )
]
_limit = bindparam("limit", type_=Integer())


@per_engine
def _due(for_postgres: bool) -> Select[Any]:
    """The most urgent runs that are due: of each priority the first few, which is a range of the index, and of these
    the most urgent.

    PostgreSQL counts them first, and then locks as many of each priority, or others where somebody has locked these:
    never more than are wanted.
    """
    foremost = _foremost(for_postgres)
    wanted = select(func.count()).select_from(foremost).scalar_subquery().label("wanted")
    if not for_postgres:
        return select(*foremost.c, wanted, _is_followed(foremost.c.concurrency_key))
    locked = union_all(*(select(_locked(foremost, level).subquery()) for level in PRIORITIES)).subquery("locked")
    one = select(literal_column("1")).subquery("one")
    # One row at least, even when all are locked by others, so that `wanted` is told.
    return select(*locked.c, wanted, _is_followed(locked.c.concurrency_key)).select_from(one.outerjoin(locked, true()))


def _foremost(for_postgres: bool) -> CTE:
    arms = union_all(
        *(select(_waiting(level).order_by(runs.c.due_at, runs.c.id).limit(_limit).subquery()) for level in PRIORITIES)
    ).subquery("arms")
    in_order = select(*arms.c).order_by(_urgency(arms.c.due_at, arms.c.priority, for_postgres), arms.c.id)
    return in_order.limit(_limit).cte("foremost")


def _locked(foremost: CTE, level: int) -> Select[Any]:
    share = select(func.count()).where(foremost.c.priority == literal_column(str(level))).scalar_subquery()
    return _waiting(level).order_by(runs.c.due_at, runs.c.id).limit(share).with_for_update(skip_locked=True)


def _waiting(level: int) -> Select[Any]:
    """What may be claimed, of one priority. The conditions are those of the index, or it would not be used."""
    holder = runs.alias("holder")
    key_is_held = (
        select(literal_column("1"))
        .where(
            holder.c.concurrency_key == runs.c.concurrency_key,
            holder.c.lease_token.is_not(None),
            holder.c.concurrency_key != literal_column("''"),
        )
        .exists()
    )
    return select(*_SEEN).where(
        runs.c.role == bindparam("role", type_=String()),
        runs.c.priority == literal_column(str(level)),
        runs.c.due_at <= bindparam("now", type_=Timestamp()),
        runs.c.lease_token.is_(None),
        runs.c.reported_status.is_(None),
        runs.c.paused_at.is_(None),
        ~runs.c.blocked,
        or_(~HAS_KEY, ~key_is_held),
    )


def _is_followed(key: ColumnElement[str]) -> ColumnElement[bool]:
    """Whether others stand in line behind a run. With a limit, because PostgreSQL might read all lines for EXISTS."""
    followers = select(true()).where(
        runs.c.role == bindparam("role", type_=String()),
        runs.c.concurrency_key == key,
        WAITS,
        runs.c.blocked,
    )
    return case((key != literal_column("''"), followers.limit(1).scalar_subquery())).label("is_followed")


@per_engine
def _heads(for_postgres: bool) -> Select[Any]:
    given = batch.given(LINE, for_postgres)
    return select(*_SEEN).join_from(given, runs, is_in(runs, given)).where(HAS_KEY, ~runs.c.blocked)


def _urgency(due_at: ColumnElement[Any], priority: ColumnElement[Any], for_postgres: bool) -> ColumnElement[Any]:
    """See `line.urgency`."""
    if for_postgres:
        return due_at + priority * literal_column(f"interval '{AGING.seconds} seconds'", INTERVAL())
    return type_coerce(due_at, BigInteger()) + priority * literal_column(str(AGING.seconds * 1_000_000), BigInteger())


@per_engine
def _lease(for_postgres: bool) -> Any:
    now = bindparam("now", type_=Timestamp())
    return (
        update(runs)
        .where(batch.among(runs.c.id, for_postgres))
        .values(
            attempt=runs.c.attempt + literal_column("1"),
            agent_id=bindparam("agent_id", type_=Id()),
            lease_token=bindparam("token", type_=Id()),
            lease_owner=bindparam("owner", type_=Id()),
            lease_expires_at=bindparam("expires_at", type_=Timestamp()),
            started_at=func.coalesce(runs.c.started_at, now),
            updated_at=now,
        )
        .returning(*_LEASED, ANY_BLOCKED)
    )


@per_engine
def _unlease(for_postgres: bool) -> Update:
    given = batch.given(_FORMER, for_postgres)
    return (
        update(runs)
        .where(runs.c.id == given.c.id)
        .values(
            attempt=runs.c.attempt - literal_column("1"),
            agent_id=given.c.agent_id,
            lease_token=None,
            lease_owner=None,
            lease_expires_at=None,
            started_at=case((runs.c.attempt > literal_column("1"), runs.c.started_at)),
        )
    )
