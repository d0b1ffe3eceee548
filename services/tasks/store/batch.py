"""Many rows as one parameter: whatever their number, the statement is the same, compiled once and planned once.

A batch travels as one JSON document and is taken apart by the database itself, several times as fast as one set of
parameters per row. All of this is about what the two engines spell differently.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, TypeVar

import orjson
from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Connection,
    Dialect,
    FromClause,
    Text,
    any_,
    bindparam,
    cast,
    column,
    func,
    literal_column,
    select,
    text,
    type_coerce,
)
from sqlalchemy.types import TypeEngine

from services.chassis.columns import Id, Json

_T = TypeVar("_T")
Columns = Mapping[str, TypeEngine[Any]]
_id = Id()
_no_whole_tables = text("SET LOCAL enable_seqscan = off")


def is_postgres(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"


def per_engine(build: Callable[[bool], _T]) -> Callable[[Connection], _T]:
    """Makes of a function that builds a statement, given whether it is for PostgreSQL, one that builds it once."""
    built = cache(build)
    return lambda connection: built(is_postgres(connection))


def use_indexes(connection: Connection) -> None:
    """Keeps PostgreSQL from reading whole tables, until the end of the transaction.

    It keeps the plan of a statement that is used often. One that was made while the queue was empty would read all of
    it when it is full.
    """
    if is_postgres(connection):
        connection.execute(_no_whole_tables)


def ids(connection: Connection, values: Iterable[str]) -> dict[str, Any]:
    """The parameter for `among`, of UUIDs."""
    if is_postgres(connection):
        return {"ids": f"{{{','.join(values)}}}"}
    process = _processor(_id, connection.dialect)
    return {"ids": orjson.dumps([process(value) if process else value for value in values]).decode()}


def among(table_id: ColumnElement[str], for_postgres: bool) -> ColumnElement[bool]:
    """Whether an id is one of the parameter `ids`."""
    if for_postgres:
        return table_id == any_(cast(bindparam("ids", type_=Text()), ARRAY(_id)))
    each = func.json_each(bindparam("ids", type_=Text())).table_valued("value")
    return table_id.in_(select(type_coerce(each.c.value, _id)))


def rows(connection: Connection, columns: Columns, items: Iterable[Sequence[Any]]) -> dict[str, Any]:
    """The parameter for `given`: one sequence of values per row, in the order of the columns."""
    convert = _converter(connection.dialect, tuple(columns.items()))
    return {"rows": orjson.dumps([convert(item) for item in items]).decode()}


def given(columns: Columns, for_postgres: bool) -> FromClause:
    """The rows of the parameter `rows`, as a table to select from."""
    if for_postgres:
        document = cast(bindparam("rows", type_=Text()), Json)
        fields = [column(name, kind) for name, kind in columns.items()]
        return func.jsonb_to_recordset(document).table_valued(*fields).render_derived("given", with_types=True)
    each = func.json_each(bindparam("rows", type_=Text())).table_valued("value")
    return select(*(_field(name, kind) for name, kind in columns.items())).select_from(each).subquery("given")


def _field(name: str, kind: TypeEngine[Any]) -> ColumnElement[Any]:
    return type_coerce(func.json_extract(literal_column("value"), literal_column(f"'$.{name}'")), kind).label(name)


@lru_cache(maxsize=64)
def _converter(
    dialect: Dialect, columns: tuple[tuple[str, TypeEngine[Any]], ...]
) -> Callable[[Sequence[Any]], dict[str, Any]]:
    """What makes of a row's values what the database understands inside of JSON."""
    names = [name for name, _ in columns]
    processors = [(name, processor) for name, kind in columns if (processor := _processor(kind, dialect))]

    def convert(values: Sequence[Any]) -> dict[str, Any]:
        # What is absent is NULL.
        row = {name: value for name, value in zip(names, values, strict=True) if value is not None}
        for name, process in processors:
            if name in row:
                row[name] = process(row[name])
        return row

    return convert


def _processor(kind: TypeEngine[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    # PostgreSQL reads ids, instants and JSON as orjson writes them. SQLite keeps them in forms of its own, and would
    # make other values of JSON that is not a text.
    return None if dialect.name == "postgresql" else kind.dialect_impl(dialect).bind_processor(dialect)
