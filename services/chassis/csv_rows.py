"""Rows as CSV (RFC 4180, UTF-8), in chunks, with memory that does not grow with their number."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
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

_CHUNK_BYTES = 64 * 1024
_FETCHED_ROWS = 250
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def csv_chunks(connection: Connection, query: Select[Any]) -> Iterator[bytes]:
    """What `query` finds, below a header of its columns' names, in chunks of about 64 KiB.

    The columns are texts, numbers or instants. A text that a spreadsheet would run gets a leading `'`.
    """
    is_postgres = connection.dialect.name == "postgresql"
    rows = _copied(connection, query) if is_postgres else _fetched(connection, query)
    return chunks(_lines([[column.key for column in query.selected_columns]]), rows)


def chunks(header: bytes, rows: Iterator[bytes]) -> Iterator[bytes]:
    """A header and rows, in chunks of about 64 KiB."""
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
