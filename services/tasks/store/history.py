"""Runs as people read them: live and finished ones in one list."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, bindparam, cast, func, null, select, union_all

from services.pipeline.definition import default_id
from services.tasks.models.run import ApprovalState, Run, RunStatus, RunStep
from services.tasks.models.run_filter import RunFilter
from services.tasks.store import batch, matching, pages, search
from services.tasks.store.batch import is_postgres, per_engine
from services.tasks.store.rows import error_from_json, step_from_row
from services.tasks.store.tables import run_history, run_steps, runs

_SHARED = (
    "id", "task_id", "task", "batch_id", "role", "agent_id", "created_by", "reported", "retry_of", "priority",
    "due_at", "started_at", "finished_at", "duration_ms", "attempt", "retries", "max_retries", "concurrency_key",
    "outputs_uri", "log_excerpt", "approval_state", "approver", "approval_note", "webhook_notified_at", "error",
    "traceparent", "created_at", "updated_at", "event_id",
)  # fmt: skip
_LEASE = ("lease_owner", "lease_expires_at", "cancel_requested_at")


def get_run(connection: Connection, run_id: str) -> Run | None:
    """One run by its id, whole."""
    live = _live([runs.c.payload["params"].label("inputs"), _absent(run_history.c.output)]).where(runs.c.id == run_id)
    finished = _finished([run_history.c.payload["params"].label("inputs"), run_history.c.output]).where(
        run_history.c.id == run_id
    )
    row = connection.execute(union_all(live, finished)).one_or_none()
    return None if row is None else _run(row, inputs=row.inputs or {}, output=row.output)


def list_runs(
    connection: Connection, wanted: RunFilter, *, limit: int, before_id: str | None = None, offset: int = 0
) -> list[Run]:
    """Up to `limit` runs, newest first, with smaller ids than `before_id`, without inputs and output.

    `offset` passes over so many of them: it reads them all.
    """
    newest_ids = search.newest_ids if wanted.text else pages.newest_ids
    return runs_by_id(connection, newest_ids(connection, wanted, limit=limit, before_id=before_id, offset=offset))


def runs_by_id(connection: Connection, run_ids: Sequence[str]) -> list[Run]:
    """The runs with these ids, newest first, without inputs and output; those that are gone by now are left out."""
    if not run_ids:
        return []
    ids = batch.ids(connection, run_ids) | {"lowest": min(run_ids), "highest": max(run_ids)}
    rows = connection.execute(_runs_by_id(connection), ids)
    return [_run(row, inputs=None, output=None) for row in rows]


def count_runs(connection: Connection, wanted: RunFilter, *, at_most: int) -> int:
    """How many runs pass a filter without text, counted up to `at_most`."""
    reach = matching.span(wanted)
    sides = []
    if wanted.live:
        sides.append(select(runs.c.id).where(*matching.live(wanted), *reach.conditions(runs.c)))
    if wanted.ended:
        leading = None if is_postgres(connection) else pages.leading(connection, wanted, reach)
        ended = matching.ended(wanted, leading=leading and leading.column)
        sides.append(select(run_history.c.id).where(*ended, *reach.conditions(run_history.c)))
    if not sides:
        return 0
    counted = union_all(*(select(side.limit(at_most).subquery()) for side in sides)).limit(at_most).subquery()
    return connection.execute(select(func.count()).select_from(counted)).scalar_one()


def all_runs(connection: Connection, wanted: RunFilter) -> Any:
    """The query of all runs that pass the filter, in no order, with the columns of `Run` except inputs and output."""
    reach, sides = matching.span(wanted), []
    if wanted.live:
        live = _live([]).where(*matching.live(wanted), *reach.conditions(runs.c))
        sides.append(live.where(matching.says(runs.c, wanted.text)) if wanted.text else live)
    if wanted.ended or not sides:
        ended = _finished([]).where(*matching.ended(wanted), *reach.conditions(run_history.c))
        sides.append(ended.where(search.condition(connection, wanted.text)) if wanted.text else ended)
    return union_all(*sides)


def run_of(row: Row[Any]) -> Run:
    """A row of `all_runs`."""
    return _run(row, inputs=None, output=None)


def step_position(connection: Connection, run_id: str, step_id: str) -> int | None:
    """The place of a step in the pipeline of a run; None when there is no such step."""
    pipelines = [select(table.c.payload["pipeline"]).where(table.c.id == run_id) for table in (runs, run_history)]
    pipeline = connection.execute(union_all(*pipelines)).scalar_one_or_none() or []
    ids = (step.get("id", default_id(position)) for position, step in enumerate(pipeline))
    return next((position for position, given in enumerate(ids) if given == step_id), None)


def list_steps(connection: Connection, run_id: str, *, limit: int, after_position: int | None) -> list[RunStep]:
    """Up to `limit` recorded steps of a run, in the order of the pipeline, behind `after_position`."""
    query = select(run_steps).where(run_steps.c.run_id == run_id).order_by(run_steps.c.position).limit(limit)
    if after_position is not None:
        query = query.where(run_steps.c.position > after_position)
    return [step_from_row(row) for row in connection.execute(query)]


def _live(more: Sequence[ColumnElement[Any]]) -> Select[Any]:
    shared = [runs.c[name] for name in _SHARED]
    return select(*shared, matching.live_status.label("status"), *(runs.c[name] for name in _LEASE), *more)


def _finished(more: Sequence[ColumnElement[Any]]) -> Select[Any]:
    return select(
        *(run_history.c[name] for name in (*_SHARED, "status")), *(_absent(runs.c[name]) for name in _LEASE), *more
    )


def _absent(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """What only the other table has, in the type that it has it."""
    return cast(null(), column.type).label(column.name)


@per_engine
def _runs_by_id(postgres: bool) -> Select[Any]:
    live = _live([]).where(batch.among(runs.c.id, postgres))
    # The range says which partitions to look into: the ids are a document that is opened later.
    in_range = run_history.c.id.between(bindparam("lowest"), bindparam("highest"))
    ended = _finished([]).where(batch.among(run_history.c.id, postgres), in_range)
    found = union_all(live, ended).subquery()
    return select(found).order_by(found.c.id.desc())


def _run(row: Row[Any], *, inputs: dict[str, Any] | None, output: dict[str, Any] | None) -> Run:
    mapping = row._mapping
    plain = {name: mapping[name] for name in (*_SHARED, *_LEASE)}
    return Run(
        **plain
        | {
            "approval_state": ApprovalState(row.approval_state) if row.approval_state else None,
            "error": error_from_json(row.error),
        },
        status=RunStatus(row.status),
        inputs=inputs,
        output=output,
    )
