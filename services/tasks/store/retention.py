"""Deleting what is old: finished runs, their steps, occurrences."""

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, bindparam, delete, exists, func, literal, select, text, tuple_

from services.chassis.columns import Timestamp
from services.chassis.ids import lowest_id_at
from services.tasks.models.pruning import Age
from services.tasks.store import batch
from services.tasks.store.event import old_events
from services.tasks.store.tables import occurrences, run_history, run_step_items, run_steps, runs

_h = run_history.c
_drop_month = text("SELECT drop_run_history_month(:cutoff)").bindparams(bindparam("cutoff", type_=Timestamp))
_first_month = text("SELECT min(month) AT TIME ZONE 'UTC' FROM run_history_months()")


class DeletedSteps(NamedTuple):
    """How many steps were deleted, and of which run the last one was; None when none were left."""

    steps: int
    last_run_id: str | None


def oldest_runs(connection: Connection, cutoff: datetime, age: Age, limit: int) -> list[str]:
    """The ids of up to `limit` finished runs that are older than `cutoff`, the oldest first."""
    query = select(_h.id).where(*_is_older(cutoff, age)).order_by(_h.id).limit(limit)
    return list(connection.execute(query).scalars())


def delete_runs(connection: Connection, run_ids: list[str]) -> tuple[int, int]:
    """Deletes finished runs and their steps; answers how many of each."""
    if not run_ids:
        return 0, 0
    postgres, ids = batch.is_postgres(connection), batch.ids(connection, run_ids)
    in_range = _h.id.between(min(run_ids), max(run_ids))  # says which partitions to look into
    deleted = connection.execute(delete(run_history).where(batch.among(_h.id, postgres), in_range), ids).rowcount
    return deleted, _delete_steps(connection, run_ids)


def delete_occurrences(connection: Connection, cutoff: datetime, limit: int) -> int:
    """Deletes up to `limit` occurrences that were decided before `cutoff`, the oldest first."""
    key = tuple_(occurrences.c.task_id, occurrences.c.scheduled_for)
    oldest = select(*key.clauses).where(occurrences.c.decided_at < cutoff).order_by(occurrences.c.decided_at)
    return connection.execute(delete(occurrences).where(key.in_(oldest.limit(limit)))).rowcount


def count(connection: Connection, cutoff: datetime, age: Age) -> tuple[int, int, int, int]:
    """How many runs, steps of theirs, occurrences and events are older than `cutoff`."""
    older = _is_older(cutoff, age)
    of_them = exists(select(_h.id).where(_h.id == run_steps.c.run_id, *older))
    queries: list[Any] = [
        select(func.count()).select_from(run_history).where(*older),
        select(func.count()).select_from(run_steps).where(run_steps.c.run_id < _bound(cutoff), of_them),
        select(func.count()).select_from(occurrences).where(occurrences.c.decided_at < cutoff),
        select(func.count()).select_from(old_events(cutoff).subquery()),
    ]
    found_runs, steps, decided, published = (connection.execute(query).scalar_one() for query in queries)
    return found_runs, steps, decided, published


def delete_steps_left(connection: Connection, after_run_id: str | None, limit: int) -> DeletedSteps:
    """Deletes the steps of up to `limit` runs that went with their month. Only on PostgreSQL."""
    before = _bound(connection.execute(_first_month).scalar_one())
    # One that was canceled in the midst of a step has items and no record of the step.
    found = (_left(table.c.run_id, before, after_run_id, limit) for table in (run_steps, run_step_items))
    run_ids = sorted({run_id for query in found for run_id in connection.execute(query).scalars()})[:limit]
    if not run_ids:
        return DeletedSteps(0, None)
    return DeletedSteps(_delete_steps(connection, run_ids), run_ids[-1])


def _left(
    run_id: ColumnElement[str], before: ColumnElement[str], after_run_id: str | None, limit: int
) -> Select[tuple[str]]:
    """The runs, by their id in what is kept of their steps, that are no more."""
    # A run of such a month may have been live when it went, and ended since then.
    is_ended, is_live = exists().where(_h.id == run_id, _h.id < before), exists().where(runs.c.id == run_id)
    left = select(run_id).distinct().where(run_id < before, ~is_ended, ~is_live)
    if after_run_id is not None:
        left = left.where(run_id > literal(after_run_id, run_id.type))
    return left.order_by(run_id).limit(limit)


def _delete_steps(connection: Connection, run_ids: list[str]) -> int:
    """Deletes the steps of runs, and their items; answers how many steps."""
    ids, postgres = batch.ids(connection, run_ids), batch.is_postgres(connection)
    connection.execute(delete(run_step_items).where(batch.among(run_step_items.c.run_id, postgres)), ids)
    return connection.execute(delete(run_steps).where(batch.among(run_steps.c.run_id, postgres)), ids).rowcount


def drop_month(connection: Connection, cutoff: datetime) -> int | None:
    """Drops the oldest month of the history when all its runs ended before `cutoff`; answers how many these were.

    None when there is none to drop. Only on PostgreSQL.
    """
    dropped: int | None = connection.execute(_drop_month, {"cutoff": cutoff}).scalar_one()
    return dropped


def _is_older(cutoff: datetime, age: Age) -> list[ColumnElement[bool]]:
    # An id's time is never behind that of start and end, so its order, which has an index, leads to the old ones.
    return [_h.id < _bound(cutoff), _h[age.value] < cutoff]


def _bound(instant: datetime) -> ColumnElement[str]:
    return literal(lowest_id_at(instant), _h.id.type)
