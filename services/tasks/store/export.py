"""Runs as CSV, in chunks, with memory that does not grow with the number of rows."""

import csv
import io
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, DateTime, Select, String, case, cast, func, literal_column, select
from sqlalchemy.dialects import postgresql

from services.chassis.columns import Timestamp
from services.tasks.models.run import RunStatus
from services.tasks.store.history import matching_runs

_CHUNK_BYTES = 64 * 1024
_FETCHED_ROWS = 250
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
# What each column of the file is made of.
_SOURCES: dict[str, Callable[[Any], ColumnElement[Any]]] = {
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
}
COLUMNS = tuple(_SOURCES)


def export_runs(
    connection: Connection,
    *,
    columns: Sequence[str],
    statuses: Collection[RunStatus],
    task_ids: Collection[str],
    limit: int | None,
) -> Iterator[bytes]:
    """The matching runs, newest first, as RFC 4180 CSV with a header, in chunks of about 64 KiB."""
    found = matching_runs(statuses, task_ids, limit=limit).subquery("found")
    query = select(*(_SOURCES[name](found.c).label(name) for name in columns)).order_by(found.c.id.desc())
    query = query.limit(limit) if limit is not None else query
    rows = _copied(connection, query) if connection.dialect.name == "postgresql" else _fetched(connection, query)
    yield from _chunks(_lines([columns]), rows)


def _chunks(header: bytes, rows: Iterator[bytes]) -> Iterator[bytes]:
    buffer = bytearray(header)
    for some in rows:
        buffer += some
        if len(buffer) >= _CHUNK_BYTES:
            yield bytes(buffer)
            buffer.clear()
    yield bytes(buffer)


def _copied(connection: Connection, query: Select[Any]) -> Iterator[bytes]:
    """The rows as the server itself writes them: COPY is many times faster than fetching."""
    inner = query.subquery("rows")
    texts = select(*(_text(column) for column in inner.c))
    dialect = postgresql.psycopg.dialect()  # type: ignore[no-untyped-call]
    compiled = texts.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
    driver = connection.connection.driver_connection
    assert driver is not None
    with driver.cursor() as cursor, cursor.copy(f"COPY ({compiled}) TO STDOUT (FORMAT csv)", compiled.params) as copy:
        for row in copy:
            # One message is one row, which ends in a bare LF where RFC 4180 wants CRLF. An empty line would be no row.
            yield (bytes(row)[:-1] or b'""') + b"\r\n"


def _text(column: ColumnElement[Any]) -> ColumnElement[Any]:
    if isinstance(column.type, Timestamp):
        utc = func.timezone("UTC", cast(column, DateTime(timezone=True)))
        return func.to_char(utc, literal_column("""'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'"""))
    if isinstance(column.type, String):
        # COPY writes an empty text as "", and no text as nothing: to a reader of CSV they are the same.
        column = func.nullif(column, "", type_=String)
        return case((func.left(column, 1).in_(_FORMULA_STARTS), "'" + column), else_=column)
    return column


def _fetched(connection: Connection, query: Select[Any]) -> Iterator[bytes]:
    result = connection.execution_options(yield_per=_FETCHED_ROWS).execute(query)
    for rows in result.partitions():
        yield _lines([_cell(value) for value in row] for row in rows)


def _cell(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if isinstance(value, str) and value.startswith(_FORMULA_STARTS):
        return "'" + value
    return value


def _lines(rows: Iterable[Sequence[Any]]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer).writerows(rows)
    return buffer.getvalue().encode()
