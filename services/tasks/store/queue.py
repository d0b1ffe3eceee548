"""The live runs of tasks: added, paused, moved, called off. How workers get at them is in `claim` and `lease`."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any

import orjson
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Insert,
    Integer,
    Interval,
    Row,
    Select,
    SmallInteger,
    String,
    bindparam,
    func,
    insert,
    literal,
    literal_column,
    select,
    type_coerce,
    update,
)

from services.chassis.columns import Id, Json, Timestamp
from services.tasks.models.run import ApprovalState, NewRun, RunError, RunStatus
from services.tasks.store import batch
from services.tasks.store.approval import cancel_pending
from services.tasks.store.batch import per_engine
from services.tasks.store.ending import Ending, finish
from services.tasks.store.line import hold_lines_of, hold_lines_of_task, lines_of, settle
from services.tasks.store.rows import error_to_json
from services.tasks.store.tables import runs

_NEW: batch.Columns = {
    "id": Id(),
    "task_id": Id(),
    "task": String(),
    "priority": SmallInteger(),
    "due_at": Timestamp(),
    "payload": Json,
    "traceparent": String(),
    "created_by": Id(),
    "role": String(),
    "batch_id": String(),
    "concurrency_key": String(),
    "max_retries": SmallInteger(),
    "backoff_strategy": String(),
    "retry_of": Id(),
    "event_id": Id(),
    "event_depth": SmallInteger(),
    "handoff_id": Id(),
    "payload_size": Integer(),
}
_values_of = attrgetter(*list(_NEW)[:-1])
_IDS: batch.Columns = {"id": Id()}
# What decides over how a live run ends, and whose it is.
_LIVE = [
    runs.c[name]
    for name in (
        "id",
        "task_id",
        "created_by",
        "role",
        "concurrency_key",
        "started_at",
        "lease_token",
        "reported",
        "agent_id",
        "approval_state",
        "traceparent",
        "event_depth",
    )
]


def add_runs(connection: Connection, new: Sequence[NewRun], now: datetime) -> None:
    """Queues runs; those with a concurrency key stand in line."""
    if new:
        rows = ((*_values_of(run), len(orjson.dumps(run.payload))) for run in new)
        connection.execute(_add(connection), batch.rows(connection, _NEW, rows) | {"now": now})
        settle(connection, {(run.role, run.concurrency_key) for run in new if run.concurrency_key}, now)


def live_runs_of(connection: Connection, task_ids: Iterable[str]) -> dict[str, str]:
    """The oldest live run of each task that has one, queued or under way."""
    given = batch.rows(connection, _IDS, ((task_id,) for task_id in dict.fromkeys(task_ids)))
    found = connection.execute(_oldest(connection), given)
    return {row.task_id: row.run_id for row in found if row.run_id is not None}


def lock_live(connection: Connection, run_id: str) -> Row[Any] | None:
    """What is known of a live run, locked together with its line."""
    batch.use_indexes(connection)
    hold_lines_of(connection, [run_id])
    return connection.execute(select(*_LIVE).where(runs.c.id == run_id).with_for_update()).one_or_none()


def lock_live_of_task(connection: Connection, task_id: str) -> Sequence[Row[Any]]:
    """What is known of all live runs of a task, locked together with their lines."""
    hold_lines_of_task(connection, task_id)
    live = select(*_LIVE).where(runs.c.task_id == task_id).order_by(runs.c.id).with_for_update()
    return connection.execute(live).all()


def cancel_live(connection: Connection, live: Sequence[Row[Any]], error: RunError, now: datetime) -> None:
    """Ends runs that nobody works on, and asks for the end of the others; `live` are rows of `lock_live`."""
    idle = [row for row in live if row.lease_token is None]
    held = [row.id for row in live if row.lease_token is not None]
    finish(connection, [Ending(row.id, row.started_at, RunStatus.CANCELED, None, error) for row in idle], now)
    if held:
        request = {"now": now, "error": error_to_json(error)}
        connection.execute(_request_cancel(connection), batch.ids(connection, held) | request)
    cancel_pending(connection, [row.id for row in idle if row.approval_state == ApprovalState.PENDING], now)
    settle(connection, lines_of(idle), now)


def cancel_live_of_task(connection: Connection, task_id: str, error: RunError, now: datetime) -> int:
    """Calls off all live runs of a task: queued ones end, leased ones are asked to stop. Answers how many."""
    live = lock_live_of_task(connection, task_id)
    cancel_live(connection, live, error, now)
    return len(live)


def pause_runs_of_task(connection: Connection, task_id: str, now: datetime) -> int:
    """Keeps a task's live runs from being leased; one that is leased goes on. Answers how many were not paused."""
    return _change_runs_of_task(connection, task_id, [runs.c.paused_at.is_(None)], {"paused_at": now}, now)


def resume_runs_of_task(connection: Connection, task_id: str, now: datetime) -> int:
    """Lets a task's runs be leased again. Answers how many were paused."""
    return _change_runs_of_task(connection, task_id, [runs.c.paused_at.is_not(None)], {"paused_at": None}, now)


def snooze_runs_of_task(connection: Connection, task_id: str, delay: timedelta, now: datetime) -> int:
    """Puts off every run of a task that nobody works on, from when it is due or, if that is past, from now.

    Answers how many.
    """
    due_at = _later(connection, runs.c.due_at, delay, now)
    return _change_runs_of_task(connection, task_id, [runs.c.lease_token.is_(None)], {"due_at": due_at}, now)


def _change_runs_of_task(
    connection: Connection,
    task_id: str,
    conditions: Iterable[ColumnElement[bool]],
    changes: dict[str, Any],
    now: datetime,
) -> int:
    hold_lines_of_task(connection, task_id)
    changed = connection.execute(
        update(runs)
        .where(runs.c.task_id == task_id, *conditions)
        .values(**changes, updated_at=now)
        .returning(runs.c.role, runs.c.concurrency_key)
    ).all()
    settle(connection, lines_of(changed), now)
    return len(changed)


def _later(connection: Connection, due_at: ColumnElement[Any], delay: timedelta, now: datetime) -> ColumnElement[Any]:
    since = literal(now, Timestamp())
    if batch.is_postgres(connection):
        return func.greatest(due_at, since) + literal(delay, Interval())
    microseconds = type_coerce(func.max(due_at, since), BigInteger()) + delay // timedelta(microseconds=1)
    return type_coerce(microseconds, Timestamp())


@per_engine
def _add(for_postgres: bool) -> Insert:
    given = batch.given(_NEW, for_postgres)
    now = bindparam("now", type_=Timestamp())
    nothing: ColumnElement[Any] = literal_column("''")
    zero: ColumnElement[Any] = literal_column("0")
    values: dict[str, ColumnElement[Any]] = {name: given.c[name] for name in _NEW} | {
        "attempt": zero,
        "retries": zero,
        "crashes": zero,
        "reported": literal_column("false" if for_postgres else "0"),
        # Until the line is settled.
        "blocked": given.c.concurrency_key != nothing,
        "outputs_uri": nothing,
        "log_excerpt": nothing,
        "approver": nothing,
        "approval_note": nothing,
        "created_at": now,
        "updated_at": now,
    }
    return insert(runs).from_select(list(values), select(*values.values()))


@per_engine
def _oldest(for_postgres: bool) -> Select[Any]:
    given = batch.given(_IDS, for_postgres)
    oldest = select(runs.c.id).where(runs.c.task_id == given.c.id).order_by(runs.c.id).limit(1).scalar_subquery()
    return select(given.c.id.label("task_id"), oldest.label("run_id"))


@per_engine
def _request_cancel(for_postgres: bool) -> Any:
    now = bindparam("now", type_=Timestamp())
    return (
        update(runs)
        .where(batch.among(runs.c.id, for_postgres), runs.c.cancel_requested_at.is_(None))
        .values(cancel_requested_at=now, error=bindparam("error", type_=Json), updated_at=now)
    )
