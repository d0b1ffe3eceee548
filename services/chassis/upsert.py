"""INSERT ... ON CONFLICT, which both engines have and SQLAlchemy spells once per engine."""

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite


def upsert(connection: Connection, table: Table) -> postgresql.Insert:
    """An insert into `table` that knows `on_conflict_do_nothing` and `on_conflict_do_update`."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    # The two classes have these methods alike, but no common type that says so.
    return sqlite.insert(table)  # type: ignore[return-value]
