"""What a database says about its tables, for comparing two."""

from typing import Any

from sqlalchemy import Connection, inspect

from migrations.contexts import is_compared

_LEDGER = "alembic_version"


def reflected(connection: Connection) -> dict[str, Any]:
    """All tables but Alembic's and what is beside them: columns with types, keys, checks and indexes with texts."""
    inspector = inspect(connection)
    dialect = connection.dialect
    return {
        table: {
            "columns": [{**column, "type": column["type"].compile(dialect)} for column in inspector.get_columns(table)],
            "primary key": inspector.get_pk_constraint(table),
            "foreign keys": _by_name(inspector.get_foreign_keys(table)),
            "unique": _by_name(inspector.get_unique_constraints(table)),
            "checks": _by_name(inspector.get_check_constraints(table)),
            "indexes": _by_name(inspector.get_indexes(table)),
        }
        for table in inspector.get_table_names()
        if table != _LEDGER and is_compared(table, "table", {})
    }


def _by_name(things: list[Any]) -> dict[str, str]:
    return {
        thing["name"]: repr(sorted(_texts(thing).items()))
        for thing in things
        if is_compared(thing["name"], "index", {})
    }


def _texts(thing: Any) -> dict[str, str]:
    return {key: _texts_of(value) for key, value in thing.items()}


def _texts_of(value: Any) -> str:
    # A partial index's predicate is an SQL expression, which has no equality of its own.
    return repr({key: str(item) for key, item in value.items()}) if isinstance(value, dict) else repr(value)
