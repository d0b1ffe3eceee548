"""Reported runs, live and finished, as rows."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Connection, Row, String, Table, case, delete, func, insert, select, update

from services.chassis.backoff import BackoffStrategy
from services.tasks.models.ledger import ReportedRun
from services.tasks.models.run import ApprovalState, RunStatus
from services.tasks.store.export import Source
from services.tasks.store.rows import error_from_json, error_to_json
from services.tasks.store.tables import run_history, runs

_CHANGED = (
    "finished_at", "duration_ms", "outputs_uri", "log_excerpt", "approval_state", "approver", "approval_note",
    "webhook_notified_at", "error",
)  # fmt: skip
_KEPT = [column.name for column in run_history.c if column.name in runs.c]
_EXCERPT_CHARACTERS = 100
_PRIORITY = 5
_INPUTS_AT_ONCE = 8

_NAMED = [runs.c[name] for name in ("id", "task_id", "task", "created_by", "traceparent", "event_depth")]


def _short_log(run: Any) -> ColumnElement[str]:
    start = func.substr(run.log_excerpt, 1, _EXCERPT_CHARACTERS, type_=String) + "…"
    return case((func.length(run.log_excerpt) > _EXCERPT_CHARACTERS, start), else_=run.log_excerpt)


COLUMNS: Mapping[str, Source] = {
    "id": lambda run: run.id,
    "task": lambda run: run.task,
    "run_id": lambda run: run.batch_id,
    "status": lambda run: run.status,
    "started_at": lambda run: run.started_at,
    "finished_at": lambda run: run.finished_at,
    "duration_ms": lambda run: run.duration_ms,
    "outputs_uri": lambda run: run.outputs_uri,
    "log_excerpt": _short_log,
}
"""The columns of the ledger's download, as `export.export_rows` takes them."""


def add_run(
    connection: Connection,
    run: ReportedRun,
    *,
    task: str,
    batch_id: str,
    inputs: Mapping[str, Any],
    traceparent: str,
    now: datetime,
) -> None:
    """Records a run that is reported for the first time; no worker here ever gets it."""
    payload = {"params": dict(inputs)}
    kept = {
        "id": run.id,
        "task_id": None,
        "task": task,
        "batch_id": batch_id,
        "role": "",
        "agent_id": run.created_by,
        "created_by": run.created_by,
        "reported": True,
        "retry_of": None,
        "priority": _PRIORITY,
        "due_at": run.started_at,
        "started_at": run.started_at,
        "attempt": 0,
        "retries": 0,
        "max_retries": 0,
        "backoff_strategy": BackoffStrategy.FIXED,
        "concurrency_key": "",
        "payload": payload,
        "traceparent": traceparent,
        "created_at": now,
        "updated_at": now,
    } | _values(run)
    if run.is_live:
        queue = {"payload_size": len(orjson.dumps(payload)), "crashes": 0, "blocked": False}
        connection.execute(insert(runs).values(**kept, **queue, reported_status=run.status))
    else:
        connection.execute(insert(run_history).values(**kept, status=run.status))


def lock_run(connection: Connection, run_id: str) -> ReportedRun | None:
    """A reported run, locked until the transaction ends; None when there is none of this id."""
    # One that ends while we wait for its row is found in the history: the second statement sees that commit.
    live = connection.execute(_locked(runs, run_id)).one_or_none()
    if live is not None:
        return _reported(live, live.reported_status)
    finished = connection.execute(_locked(run_history, run_id)).one_or_none()
    return None if finished is None else _reported(finished, finished.status)


def save_run(connection: Connection, before: ReportedRun, after: ReportedRun, now: datetime) -> None:
    """Stores what has become of a run that is locked; one that has just ended moves to the history."""
    values = _values(after) | {"updated_at": now}
    if after.is_live:
        _update(connection, runs, after.id, values | {"reported_status": after.status})
    elif before.is_live:
        row = connection.execute(delete(runs).where(runs.c.id == after.id).returning(*runs.c)).one()
        kept = {name: row._mapping[name] for name in _KEPT}
        connection.execute(insert(run_history).values(**kept | values, status=after.status))
    else:
        _update(connection, run_history, after.id, values)


def named(connection: Connection, run_id: str) -> Row[Any]:
    """What a question says of a reported run that is live, and what is told with it."""
    return connection.execute(select(*_NAMED).where(runs.c.id == run_id)).one()


def read_inputs(connection: Connection, run_ids: Iterable[str], max_bytes: int) -> dict[str, dict[str, Any]]:
    """What runs were given, by id, in the order asked for, until there are more than `max_bytes` of it as JSON.

    Those behind are left out.
    """
    found: dict[str, dict[str, Any]] = {}
    wanted = list(run_ids)
    for start in range(0, len(wanted), _INPUTS_AT_ONCE):
        some = wanted[start : start + _INPUTS_AT_ONCE]
        stored: dict[str, dict[str, Any]] = {}
        # In this order, so that a run that ends meanwhile is found in one of them.
        for table in (runs, run_history):
            query = select(table.c.id, table.c.payload["params"].label("inputs")).where(table.c.id.in_(some))
            stored |= {row.id: row.inputs or {} for row in connection.execute(query)}
        for run_id in some:
            # What a run was given that is deleted meanwhile, nobody can tell any more.
            found[run_id] = stored.get(run_id, {})
            max_bytes -= len(orjson.dumps(found[run_id]))
        if max_bytes < 0:
            break
    return found


def _locked(table: Table, run_id: str) -> Any:
    return select(table).where(table.c.id == run_id, table.c.reported).with_for_update()


def _update(connection: Connection, table: Table, run_id: str, values: Mapping[str, Any]) -> None:
    connection.execute(update(table).where(table.c.id == run_id).values(**values))


def _values(run: ReportedRun) -> dict[str, Any]:
    return {name: getattr(run, name) for name in _CHANGED} | {"error": error_to_json(run.error)}


def _reported(row: Row[Any], status: str) -> ReportedRun:
    values = {name: row._mapping[name] for name in _CHANGED}
    values["approval_state"] = ApprovalState(row.approval_state) if row.approval_state else None
    values["error"] = error_from_json(row.error)
    return ReportedRun(
        id=row.id, created_by=row.created_by, status=RunStatus(status), started_at=row.started_at, **values
    )
