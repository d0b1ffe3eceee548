"""Whether a database is what the code expects."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Column, Connection, Constraint, Index, MetaData, Table, inspect, text

from migrations.contexts import BESIDE_THE_TABLES, COMPARED, CONTEXTS, expected, is_compared
from migrations.history import CONFIG_FILE, History
from migrations.runner import open_target

_COMPARISON = {
    "compare_type": True,
    "compare_server_default": True,
    "autogenerate_plugins": COMPARED,
    "include_name": is_compared,
}


def findings(database_url: str, *, config_file: Path = CONFIG_FILE) -> list[str]:
    """Everything that is not as it should be, in words: pending steps, changed tables, wrong access.

    Changes nothing. Raises Unreachable, NewerDatabase, UnusableAddress.
    """
    target = open_target(database_url)
    found: list[str] = []
    for context in CONTEXTS:
        with target.connect(context) as connection:
            pending = History(context, config_file).state(connection).pending
            found += [f"{context}: step {step.revision} ({step.summary}) is not applied" for step in pending]
            if not pending:
                found += [f"{context}: {change}" for change in drift(connection, expected(context))]
    return found + target.exposures()


def drift(connection: Connection, metadata: MetaData) -> list[str]:
    """How the tables of one context differ from `metadata`.

    Of check constraints the names are compared; of partial indexes, that they are partial; of what one engine alone
    has, that it is there.
    """
    comparison = MigrationContext.configure(connection, opts=_COMPARISON)
    changes = compare_metadata(comparison, metadata)
    flat = [change for entry in changes for change in (entry if isinstance(entry, list) else [entry])]
    found = [_in_words(change) for change in flat] + list(_predicates(connection, metadata))
    return found + (_missing_beside(connection) if "run_history" in metadata.tables else [])


def _in_words(change: tuple[Any, ...]) -> str:
    action, *details = change
    if action.startswith("modify_"):
        _, table, column, _, found, wanted = details
        return f"{table}.{column} has {action.removeprefix('modify_')} {found}, expected {wanted}"
    verdict = "is missing" if action.startswith("add_") else "is not expected"
    return f"{_named(details)} {verdict}"


def _missing_beside(connection: Connection) -> list[str]:
    postgres = connection.dialect.name == "postgresql"
    names = (
        text("SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace")
        if postgres
        else text("SELECT name FROM sqlite_schema")
    )
    present = set(connection.execute(names).scalars())
    return [f"{name} is missing" for name in BESIDE_THE_TABLES[connection.dialect.name] if name not in present]


def _named(details: list[Any]) -> str:
    thing = details[-1]
    match thing:
        case Table():
            return f"table {thing.name}"
        case Column():
            return f"column {details[-2]}.{thing.name}"
        case Index() if thing.table is not None:
            return f"index {thing.name} of {thing.table.name}"
        case Constraint():
            return f"constraint {thing.name} of {thing.table.name}"
    return str(thing)


def _predicates(connection: Connection, metadata: MetaData) -> Iterator[str]:
    engine = connection.dialect.name
    inspector = inspect(connection)
    present = set(inspector.get_table_names())
    for table in metadata.sorted_tables:
        found = {index["name"]: index for index in inspector.get_indexes(table.name)} if table.name in present else {}
        for index in table.indexes:
            reflected = found.get(index.name)
            wanted = index.dialect_options[engine]["where"] is not None
            if reflected and (f"{engine}_where" in reflected.get("dialect_options", {})) != wanted:
                yield f"index {index.name} of {table.name} {'must be' if wanted else 'must not be'} partial"
