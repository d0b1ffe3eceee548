"""The recorded steps of runs and their items, as workers add to them and get them back."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Insert,
    Integer,
    Select,
    SmallInteger,
    String,
    Table,
    bindparam,
    insert,
    literal_column,
    or_,
    select,
    true,
)
from sqlalchemy.dialects import postgresql, sqlite

from services.chassis.columns import Id, Json, Timestamp
from services.tasks.models.run import RunStep, StepStatus
from services.tasks.store import batch
from services.tasks.store.batch import per_engine
from services.tasks.store.rows import error_to_json, item_from_row, step_from_row
from services.tasks.store.tables import run_step_items, run_steps

_BOTH: batch.Columns = {
    "step_id": String(),
    "uses": String(),
    "status": String(),
    "attempt": Integer(),
    "input_digest": String(),
    "output": Json,
    "error": Json,
    "started_at": Timestamp(),
    "finished_at": Timestamp(),
    "duration_ms": BigInteger(),
    "span_id": String(),
    "tries": SmallInteger(),
    "output_uri": String(),
}
_STEP: batch.Columns = {
    "run_id": Id(),
    "position": Integer(),
    **_BOTH,
    "items_total": Integer(),
    "items_failed": Integer(),
}
_ITEM: batch.Columns = {"run_id": Id(), "position": Integer(), "item": Integer(), **_BOTH}
# What says whether a failure is one that is known. When it ended does not: of a report without it, that is the report.
_FAILURE = ("attempt", "tries", "status", "error")
_Key = tuple[str, int, int]
_WHOLE = -1
"""Stands for the item of what is a step itself."""


def add_steps(connection: Connection, steps: Sequence[tuple[str, RunStep]]) -> Mapping[str, list[RunStep]]:
    """Records finished steps and items by run id; answers those that were not known, by run.

    One that is recorded already stays, unless it had failed, and this is not the same failure told again.
    """
    told: dict[_Key, RunStep] = {}
    for run_id, step in steps:
        key = run_id, step.position, _WHOLE if step.item is None else step.item
        earlier = told.get(key)
        if earlier is None or earlier.status is StepStatus.FAILED:
            told[key] = step
    new: dict[str, list[RunStep]] = defaultdict(list)
    for key in _recorded(connection, sorted(told.items(), key=lambda entry: entry[0])):
        new[key[0]].append(told[key])
    return new


def _recorded(connection: Connection, in_order: Sequence[tuple[_Key, RunStep]]) -> Iterator[_Key]:
    whole = [_step_row(run_id, step) for (run_id, *_), step in in_order if step.item is None]
    items = [_item_row(run_id, step) for (run_id, *_), step in in_order if step.item is not None]
    if whole:
        for row in connection.execute(_record_steps(connection), batch.rows(connection, _STEP, whole)):
            yield row.run_id, row.position, _WHOLE
    if items:
        for row in connection.execute(_record_items(connection), batch.rows(connection, _ITEM, items)):
            yield row.run_id, row.position, row.item


def copy_done_steps(connection: Connection, *, from_run: str, to_run: str) -> None:
    """Gives a run what steps and items of another one succeeded or were skipped, so that it is not done again."""
    for copy in _COPIES:
        connection.execute(copy, {"from_run": from_run, "to_run": to_run})


def steps_of(connection: Connection, run_ids: Sequence[str]) -> Mapping[str, list[RunStep]]:
    """The recorded steps of each run, in the order of the pipeline."""
    steps: dict[str, list[RunStep]] = defaultdict(list)
    if run_ids:
        for row in connection.execute(_of_runs(connection), batch.ids(connection, run_ids)):
            steps[row.run_id].append(step_from_row(row))
    return steps


def step_ids(connection: Connection, run_ids: Collection[str]) -> Mapping[tuple[str, int], str]:
    """The ids of the recorded steps, by run and place."""
    columns = run_steps.c
    found = select(columns.run_id, columns.position, columns.step_id).where(columns.run_id.in_(run_ids))
    return {(row.run_id, row.position): row.step_id for row in connection.execute(found)}


def is_done(connection: Connection, run_id: str, step_id: str) -> bool:
    """Whether a step of a run is recorded as succeeded, or skipped."""
    columns = run_steps.c
    done = select(columns.position).where(
        columns.run_id == run_id, columns.step_id == step_id, columns.status != StepStatus.FAILED.value
    )
    return connection.execute(done.limit(1)).one_or_none() is not None


def list_items(
    connection: Connection,
    run_id: str,
    position: int,
    *,
    limit: int,
    after: int | None,
    status: StepStatus | None = None,
) -> list[RunStep]:
    """Up to `limit` recorded items of a step, in their order, behind the item `after`."""
    columns = run_step_items.c
    query = select(run_step_items).where(columns.run_id == run_id, columns.position == position)
    if after is not None:
        query = query.where(columns.item > after)
    if status is not None:
        query = query.where(columns.status == status.value)
    return [item_from_row(row) for row in connection.execute(query.order_by(columns.item).limit(limit))]


def _step_row(run_id: str, step: RunStep) -> tuple[Any, ...]:
    total, failed = (step.items.total, step.items.failed) if step.items else (None, None)
    return run_id, step.position, *_both(step), total, failed


def _item_row(run_id: str, step: RunStep) -> tuple[Any, ...]:
    return run_id, step.position, step.item, *_both(step)


def _both(step: RunStep) -> tuple[Any, ...]:
    return (
        step.id,
        step.uses,
        step.status.value,
        step.attempt,
        step.input_digest,
        step.output,
        error_to_json(step.error),
        step.started_at,
        step.finished_at,
        step.duration_ms,
        step.span_id,
        step.tries,
        step.output_uri or None,
    )


def _copy_done(table: Table) -> Insert:
    copied = [column for column in table.c if column.name != "run_id"]
    of_the_other = select(bindparam("to_run", type_=Id()), *copied).where(
        table.c.run_id == bindparam("from_run"), table.c.status != StepStatus.FAILED.value
    )
    return insert(table).from_select(["run_id", *(column.name for column in copied)], of_the_other)


_COPIES = (_copy_done(run_steps), _copy_done(run_step_items))


def _record(table: Table, columns: batch.Columns, for_postgres: bool) -> Any:
    keys = list(table.primary_key.columns)
    given = batch.given(columns, for_postgres)
    # Without a WHERE, SQLite takes the ON of the conflict for one of a join.
    source = select(*given.c).where(true())
    statement = (postgresql if for_postgres else sqlite).insert(table).from_select(list(columns), source)
    is_another = or_(*(table.c[name].is_distinct_from(statement.excluded[name]) for name in _FAILURE))
    return statement.on_conflict_do_update(
        index_elements=keys,
        set_={name: statement.excluded[name] for name in columns if name not in table.primary_key.columns},
        where=(table.c.status == literal_column("'failed'")) & is_another,
    ).returning(*keys)


@per_engine
def _record_steps(for_postgres: bool) -> Any:
    return _record(run_steps, _STEP, for_postgres)


@per_engine
def _record_items(for_postgres: bool) -> Any:
    return _record(run_step_items, _ITEM, for_postgres)


@per_engine
def _of_runs(for_postgres: bool) -> Select[Any]:
    return select(run_steps).where(batch.among(run_steps.c.run_id, for_postgres)).order_by(run_steps.c.position)
