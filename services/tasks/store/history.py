"""Runs as people read them: live and finished ones in one list."""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    String,
    Table,
    case,
    cast,
    literal,
    null,
    select,
    union_all,
)

from services.tasks.models.run import LIVE, Run, RunStatus, RunStep
from services.tasks.store.rows import error_from_json, step_from_row
from services.tasks.store.tables import run_history, run_steps, runs

_SHARED = (
    "id", "task_id", "task", "priority", "due_at", "started_at", "attempt", "traceparent", "created_at", "updated_at"
)  # fmt: skip
_ENDED = ("finished_at", "duration_ms", "error")
_live_status = case((runs.c.lease_token.is_(None), RunStatus.QUEUED.value), else_=RunStatus.RUNNING.value)


def get_run(connection: Connection, run_id: str) -> Run | None:
    """One run by its id, whole."""
    live = _live([runs.c.payload["params"].label("inputs"), _absent("output")]).where(runs.c.id == run_id)
    finished = _finished([run_history.c.payload["params"].label("inputs"), run_history.c.output]).where(
        run_history.c.id == run_id
    )
    row = connection.execute(union_all(live, finished)).one_or_none()
    return None if row is None else _run(row, inputs=row.inputs or {}, output=row.output)


def list_runs(
    connection: Connection,
    *,
    limit: int,
    before_id: str | None,
    statuses: Collection[RunStatus],
    task_ids: Collection[str],
) -> list[Run]:
    """Up to `limit` runs, newest first, created before `before_id`, without inputs and output."""
    page = matching_runs(statuses, task_ids, before_id=before_id, limit=limit)
    newest_first = select(page.subquery())
    newest_first = newest_first.order_by(newest_first.selected_columns.id.desc()).limit(limit)
    return [_run(row, inputs=None, output=None) for row in connection.execute(newest_first)]


def matching_runs(
    statuses: Collection[RunStatus],
    task_ids: Collection[str],
    *,
    before_id: str | None = None,
    limit: int | None = None,
) -> Any:
    """The union of live and finished runs that pass the filters; empty filters let everything through.

    Each side is cut to `limit` by its own index before they are merged.
    """
    live_statuses = [status for status in statuses if status in LIVE]
    ended_statuses = [status for status in statuses if status not in LIVE]
    sides = []
    if live_statuses or not statuses:
        live = _live([]).where(*_filters(runs, task_ids, before_id))
        sides.append(_newest(live.where(_live_status.in_(live_statuses)) if live_statuses else live, runs, limit))
    if ended_statuses or not statuses:
        finished = _finished([]).where(*_filters(run_history, task_ids, before_id))
        chosen = finished.where(run_history.c.status.in_(ended_statuses)) if ended_statuses else finished
        sides.append(_newest(chosen, run_history, limit))
    return union_all(*sides)


def list_steps(connection: Connection, run_id: str, *, limit: int, after_position: int | None) -> list[RunStep]:
    """Up to `limit` recorded steps of a run, in the order of the pipeline, behind `after_position`."""
    query = select(run_steps).where(run_steps.c.run_id == run_id).order_by(run_steps.c.position).limit(limit)
    if after_position is not None:
        query = query.where(run_steps.c.position > after_position)
    return [step_from_row(row) for row in connection.execute(query)]


def _live(more: Sequence[ColumnElement[Any]]) -> Select[Any]:
    shared = [runs.c[name] for name in _SHARED]
    status = cast(_live_status, String(16)).label("status")
    return select(*shared, status, *(_absent(name) for name in _ENDED), *more)


def _finished(more: Sequence[ColumnElement[Any]]) -> Select[Any]:
    return select(*(run_history.c[name] for name in (*_SHARED, "status", *_ENDED)), *more)


def _absent(name: str) -> ColumnElement[Any]:
    """What a live run does not have yet, in the type that a finished one has it."""
    return cast(null(), run_history.c[name].type).label(name)


def _filters(table: Table, task_ids: Collection[str], before_id: str | None) -> list[ColumnElement[bool]]:
    wanted: list[ColumnElement[bool]] = []
    if task_ids:
        wanted.append(table.c.task_id.in_(list(task_ids)))
    if before_id is not None:
        wanted.append(table.c.id < literal(before_id, table.c.id.type))
    return wanted


def _newest(side: Select[Any], table: Table, limit: int | None) -> Select[Any]:
    if limit is None:
        return side
    # Wrapped, because SQLite allows no ORDER BY inside a compound SELECT.
    return select(side.order_by(table.c.id.desc()).limit(limit).subquery())


def _run(row: Row[Any], *, inputs: dict[str, Any] | None, output: dict[str, Any] | None) -> Run:
    shared = {name: row._mapping[name] for name in _SHARED}
    return Run(
        **shared,
        status=RunStatus(row.status),
        finished_at=row.finished_at,
        duration_ms=row.duration_ms,
        inputs=inputs,
        output=output,
        error=error_from_json(row.error),
    )
