"""How live runs become history."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Delete,
    Row,
    String,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal_column,
    select,
)
from sqlalchemy.sql.dml import ReturningInsert

from services.chassis.columns import Id, Json, Timestamp
from services.tasks.models.run import RunError, RunStatus
from services.tasks.store import batch
from services.tasks.store.batch import per_engine
from services.tasks.store.domain_event import RunChange, publish_runs
from services.tasks.store.report import REPORTED, tell_reports
from services.tasks.store.rows import error_to_json
from services.tasks.store.tables import run_history, runs

_MILLISECOND = timedelta(milliseconds=1)
_ENDING: batch.Columns = {
    "id": Id(),
    "status": String(),
    "duration_ms": BigInteger(),
    "output": Json,
    "error": Json,
    "outputs_uri": String(),
}
_KEPT = [column.name for column in run_history.c if column.name in runs.c]


KEPT_IN_RETRY = (
    "task_id",
    "task",
    "priority",
    "payload",
    "created_by",
    "role",
    "batch_id",
    "concurrency_key",
    "max_retries",
    "backoff_strategy",
    "event_id",
    "event_depth",
    "handoff_id",
)
"""What a finished run and the one that repeats it have in common."""


@dataclass(frozen=True)
class Ending:
    """The end of one run."""

    run_id: str
    started_at: datetime | None
    status: RunStatus
    output: dict[str, Any] | None
    error: RunError | None
    outputs_uri: str = ""


def finish(connection: Connection, endings: Sequence[Ending], now: datetime) -> int:
    """Moves runs from the live table to the history. What asks for approval there is asked for no more.

    What somebody waits to hear of them is published; answers how many events that made. Of those that a workflow has
    asked for it is told what they have come to.
    """
    if not endings:
        return 0
    changes = [RunChange(ending.run_id, ending.status, ending.error) for ending in endings]
    published = publish_runs(connection, changes, now)
    given = batch.rows(connection, _ENDING, (_row(ending, now) for ending in endings))
    ids = batch.ids(connection, [ending.run_id for ending in endings])
    kept = connection.execute(_keep(connection), given | ids | {"now": now}).all()
    connection.execute(_remove(connection), ids)
    tell_reports(connection, [row for row in kept if row.handoff_id is not None], now)
    return published


def get_ended(connection: Connection, run_id: str) -> Row[Any] | None:
    """What is needed of a finished run to repeat it; nobody deletes it, or its steps, before the transaction ends."""
    kept = (run_history.c[name] for name in ("status", "reported", *KEPT_IN_RETRY))
    found = select(*kept).where(run_history.c.id == run_id).with_for_update(read=True, key_share=True)
    return connection.execute(found).one_or_none()


def _row(ending: Ending, now: datetime) -> tuple[Any, ...]:
    # A reporter's clock may be ahead of ours.
    duration = None if ending.started_at is None else max(0, (now - ending.started_at) // _MILLISECOND)
    # What is elsewhere is not here, not even as an empty object.
    output = None if ending.outputs_uri else ending.output
    error, outputs_uri = error_to_json(ending.error), ending.outputs_uri or None
    return ending.run_id, ending.status.value, duration, output, error, outputs_uri


@per_engine
def _keep(for_postgres: bool) -> ReturningInsert[Any]:
    given = batch.given(_ENDING, for_postgres)
    now = bindparam("now", type_=Timestamp())
    values = {name: runs.c[name] for name in _KEPT} | {
        # What was reported from outside may have said so itself already.
        "finished_at": func.coalesce(runs.c.finished_at, now),
        "duration_ms": func.coalesce(runs.c.duration_ms, given.c.duration_ms),
        "approval_state": case(
            (runs.c.approval_state == literal_column("'pending'"), literal_column("'cancelled'")),
            else_=runs.c.approval_state,
        ),
        "outputs_uri": func.coalesce(given.c.outputs_uri, runs.c.outputs_uri),
        "error": given.c.error,
        "updated_at": now,
        "status": given.c.status,
        "output": given.c.output,
    }
    same = runs.c.id == given.c.id
    # Said twice, or PostgreSQL might join the whole table; and once, or SQLite would read the batch for each run.
    condition = and_(same, batch.among(runs.c.id, for_postgres)) if for_postgres else same
    source = select(*values.values()).join_from(given, runs, condition)
    return insert(run_history).from_select(list(values), source).returning(*REPORTED)


@per_engine
def _remove(for_postgres: bool) -> Delete:
    return delete(runs).where(batch.among(runs.c.id, for_postgres))
