"""All that is in Baton's databases, column by column."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
from psycopg import sql

from migrations.contexts import CONTEXTS


def dump(database_url: str) -> dict[str, bytes]:
    """What each column holds in all of its rows, by `context.table.column`; from the administrator's URL."""
    read = _sqlite if database_url.startswith("sqlite:") else _postgres
    found: dict[str, list[bytes]] = {}
    for context in CONTEXTS:
        for table, columns, rows in read(database_url, context):
            for row in rows:
                for column, value in zip(columns, row, strict=True):
                    found.setdefault(f"{context}.{table}.{column}", []).append(_bytes(value))
    return {place: b"\n".join(values) for place, values in found.items()}


_Table = tuple[str, list[str], list[Any]]


def _sqlite(database_url: str, context: str) -> Iterator[_Table]:
    with closing(sqlite3.connect(f"{database_url.removeprefix('sqlite:///')}/{context}.db")) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (name,) in names:
            rows = connection.execute(f'SELECT * FROM "{name}"')
            yield name, [column for column, *_ in rows.description], rows.fetchall()


def _postgres(database_url: str, context: str) -> Iterator[_Table]:
    with psycopg.connect(database_url) as connection:
        names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", [context]).fetchall()
        for (name,) in names:
            rows = connection.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(context, name)))
            yield name, [column.name for column in rows.description or ()], rows.fetchall()


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
