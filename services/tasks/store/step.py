"""The recorded steps of runs, as workers add to them and get them back."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import BigInteger, Connection, Integer, Select, String, bindparam, insert, literal_column, select, true
from sqlalchemy.dialects import postgresql, sqlite

from services.chassis.columns import Id, Json, Timestamp
from services.tasks.models.run import RunStep, StepStatus
from services.tasks.store import batch
from services.tasks.store.batch import per_engine
from services.tasks.store.rows import error_to_json, step_from_row
from services.tasks.store.tables import run_steps

_STEP: batch.Columns = {
    "run_id": Id(),
    "position": Integer(),
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
}
_copied = [column for column in run_steps.c if column.name != "run_id"]
_copy_done = insert(run_steps).from_select(
    ["run_id", *(column.name for column in _copied)],
    select(bindparam("to_run", type_=Id()), *_copied).where(
        run_steps.c.run_id == bindparam("from_run"), run_steps.c.status != StepStatus.FAILED.value
    ),
)


def add_steps(connection: Connection, steps: Iterable[tuple[str, RunStep]]) -> None:
    """Records finished steps by run id. A step that is recorded already stays as it is, unless it had failed."""
    recorded: dict[tuple[str, int], RunStep] = {}
    for run_id, step in steps:
        earlier = recorded.get((run_id, step.position))
        if earlier is None or earlier.status is StepStatus.FAILED:
            recorded[run_id, step.position] = step
    if recorded:
        values = (_row(run_id, step) for (run_id, _), step in sorted(recorded.items(), key=lambda item: item[0]))
        connection.execute(_record(connection), batch.rows(connection, _STEP, values))


def copy_done_steps(connection: Connection, *, from_run: str, to_run: str) -> None:
    """Gives a run the steps of another one that succeeded or were skipped, so that they are not done again."""
    connection.execute(_copy_done, {"from_run": from_run, "to_run": to_run})


def steps_of(connection: Connection, run_ids: Sequence[str]) -> Mapping[str, list[RunStep]]:
    """The recorded steps of each run, in the order of the pipeline."""
    steps: dict[str, list[RunStep]] = defaultdict(list)
    if run_ids:
        for row in connection.execute(_of_runs(connection), batch.ids(connection, run_ids)):
            steps[row.run_id].append(step_from_row(row))
    return steps


def _row(run_id: str, step: RunStep) -> tuple[Any, ...]:
    return (
        run_id,
        step.position,
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
    )


@per_engine
def _record(for_postgres: bool) -> Any:
    given = batch.given(_STEP, for_postgres)
    # Without a WHERE, SQLite takes the ON of the conflict for one of a join.
    source = select(*given.c).where(true())
    statement = (postgresql if for_postgres else sqlite).insert(run_steps).from_select(list(_STEP), source)
    return statement.on_conflict_do_update(
        index_elements=[run_steps.c.run_id, run_steps.c.position],
        set_={name: statement.excluded[name] for name in _STEP if name not in ("run_id", "position")},
        where=run_steps.c.status == literal_column("'failed'"),
    )


@per_engine
def _of_runs(for_postgres: bool) -> Select[Any]:
    return select(run_steps).where(batch.among(run_steps.c.run_id, for_postgres)).order_by(run_steps.c.position)
