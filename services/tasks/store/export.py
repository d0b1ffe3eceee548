"""Runs as files, in chunks, with memory that does not grow with the number of rows."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, select

from services.chassis.csv_rows import chunks, csv_chunks
from services.tasks.models.run import Run
from services.tasks.models.run_filter import RunFilter
from services.tasks.store import history

_FETCHED_ROWS = 250
Source = Callable[[Any], ColumnElement[Any]]
"""What a column of the file is made of, given the columns of `history.all_runs`."""

# In the order of the default file, and behind these the ones that have to be asked for.
COLUMNS: Mapping[str, Source] = {
    "id": lambda run: run.id,
    "task_id": lambda run: run.task_id,
    "task": lambda run: run.task,
    "status": lambda run: run.status,
    "priority": lambda run: run.priority,
    "attempt": lambda run: run.attempt,
    "due_at": lambda run: run.due_at,
    "started_at": lambda run: run.started_at,
    "finished_at": lambda run: run.finished_at,
    "duration_ms": lambda run: run.duration_ms,
    "error_class": lambda run: run.error["class"].as_string(),
    "error_message": lambda run: run.error["message"].as_string(),
    "trace_id": lambda run: func.substr(run.traceparent, 4, 32),
    "created_at": lambda run: run.created_at,
    "batch_id": lambda run: run.batch_id,
    "role": lambda run: run.role,
    "agent_id": lambda run: run.agent_id,
    "created_by": lambda run: run.created_by,
    "retry_of": lambda run: run.retry_of,
    "retries": lambda run: run.retries,
    "outputs_uri": lambda run: run.outputs_uri,
    "log_excerpt": lambda run: run.log_excerpt,
    "approval_state": lambda run: run.approval_state,
    "approver": lambda run: run.approver,
    "updated_at": lambda run: run.updated_at,
    "event_id": lambda run: run.event_id,
}
DEFAULT_COLUMNS = tuple(COLUMNS)[:14]


def export_runs(
    connection: Connection, wanted: RunFilter, *, columns: Sequence[str] = DEFAULT_COLUMNS, limit: int | None = None
) -> Iterator[bytes]:
    """The matching runs as `export_rows` writes them, with some of COLUMNS."""
    return export_rows(connection, {name: COLUMNS[name] for name in columns}, wanted, limit)


def export_rows(
    connection: Connection, columns: Mapping[str, Source], wanted: RunFilter, limit: int | None = None
) -> Iterator[bytes]:
    """The matching runs, newest first, as RFC 4180 CSV with a header, in chunks of about 64 KiB.

    `columns` are the names in the header and what is below them: texts, numbers or instants.
    """
    found = history.all_runs(connection, wanted).subquery("found")
    query = select(*(source(found.c).label(name) for name, source in columns.items()))
    query = query.order_by(found.c.id.desc()).limit(limit)
    return csv_chunks(connection, query)


def export_lines(
    connection: Connection, wanted: RunFilter, to_line: Callable[[Run], bytes], *, limit: int | None = None
) -> Iterator[bytes]:
    """The matching runs, newest first, each as `to_line` writes it, in chunks of about 64 KiB."""
    found = history.all_runs(connection, wanted).subquery("found")
    query = select(found).order_by(found.c.id.desc()).limit(limit)
    fetched = connection.execute(query.execution_options(yield_per=_FETCHED_ROWS))
    lines = (b"".join(to_line(history.run_of(row)) for row in rows) for rows in fetched.partitions())
    return chunks(b"", lines)
