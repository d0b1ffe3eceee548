"""Runs as files, in chunks, with memory that does not grow with the number of rows."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    DateTime,
    Select,
    String,
    case,
    cast,
    func,
    literal_column,
    select,
    type_coerce,
)
from sqlalchemy.dialects import postgresql

from services.chassis.columns import Id, Timestamp, from_stored_id
from services.tasks.models.run import Run
from services.tasks.models.run_filter import RunFilter
from services.tasks.store import history
from services.tasks.store.batch import is_postgres

_CHUNK_BYTES = 64 * 1024
_FETCHED_ROWS = 250
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
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
    rows = _copied(connection, query) if is_postgres(connection) else _fetched(connection, query)
    return _chunks(_lines([list(columns)]), rows)


def export_lines(
    connection: Connection, wanted: RunFilter, to_line: Callable[[Run], bytes], *, limit: int | None = None
) -> Iterator[bytes]:
    """The matching runs, newest first, each as `to_line` writes it, in chunks of about 64 KiB."""
    found = history.all_runs(connection, wanted).subquery("found")
    query = select(found).order_by(found.c.id.desc()).limit(limit)
    fetched = connection.execute(query.execution_options(yield_per=_FETCHED_ROWS))
    lines = (b"".join(to_line(history.run_of(row)) for row in rows) for rows in fetched.partitions())
    return _chunks(b"", lines)


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
    """The rows as SQLite stores them, each value written at once as the file has it."""
    inner = query.subquery("rows")
    stored = select(*(_as_stored(column) for column in inner.c)).execution_options(yield_per=_FETCHED_ROWS)
    cells = [_cell(column) for column in inner.c]
    for rows in connection.execute(stored).partitions():
        yield _lines([cell(value) for cell, value in zip(cells, row, strict=True)] for row in rows)


def _as_stored(column: ColumnElement[Any]) -> ColumnElement[Any]:
    if isinstance(column.type, Timestamp):
        return type_coerce(column, BigInteger)
    return type_coerce(column, String) if isinstance(column.type, Id) else column


def _cell(column: ColumnElement[Any]) -> Callable[[Any], Any]:
    """What writes a stored value of a column."""
    match column.type:
        case Timestamp():
            return _instant
        case Id():
            return from_stored_id
        case String():
            return _guarded
    return _same


def _instant(microseconds: int | None) -> str | None:
    if microseconds is None:
        return None
    second, fraction = divmod(microseconds, 1_000_000)
    return f"{_second(second)}.{fraction:06}Z"


@lru_cache(maxsize=4096)
def _second(since_1970: int) -> str:
    # Neighbouring rows have mostly the same seconds.
    return datetime.fromtimestamp(since_1970, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _guarded(text: str | None) -> str | None:
    return "'" + text if text and text[0] in _FORMULA_STARTS else text


def _same(value: Any) -> Any:
    return value


def _lines(rows: Iterable[Sequence[Any]]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer).writerows(rows)
    return buffer.getvalue().encode()
