"""The audit, as rows that are only ever added."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, insert, select, update

from services.sessions.models.audit import Action, AuditFilter, Entry, Head
from services.sessions.store.tables import audit_entries, audit_head

_ACTION = [audit_entries.c[name] for name in Action.__dataclass_fields__]
_EXPORTED = [column for column in audit_entries.c if column.name not in ("before", "after")]
_EQUAL = ("actor", "resource", "context", "trace_id", "run_id", "request_id")


def lock_head(connection: Connection) -> Head:
    """Where the chain ends; nobody else adds to it before this transaction ends."""
    row = connection.execute(select(audit_head.c.sequence, audit_head.c.hash).with_for_update()).one()
    return Head(row.sequence, row.hash)


def head(connection: Connection) -> tuple[Head, str]:
    """Where the chain ends, as it is noted, and the seal of that note."""
    row = connection.execute(select(audit_head.c.sequence, audit_head.c.hash, audit_head.c.seal)).one()
    return Head(row.sequence, row.hash), row.seal


def known(connection: Connection, ids: Collection[str]) -> set[str]:
    """Those of the ids that entries have."""
    return set(connection.execute(select(audit_entries.c.id).where(audit_entries.c.id.in_(ids))).scalars())


def append(connection: Connection, entries: Sequence[Entry], key: bytes) -> None:
    """Adds entries behind the head, which is locked, and moves it."""
    end = Head(entries[-1].sequence, entries[-1].hash)
    connection.execute(insert(audit_entries), [_values(entry) for entry in entries])
    connection.execute(update(audit_head).values(sequence=end.sequence, hash=end.hash, seal=end.seal(key)))


def list_entries(
    connection: Connection, wanted: AuditFilter, *, limit: int, before_sequence: int | None
) -> list[Entry]:
    """The newest entries of those that are wanted, newest first."""
    query = select(audit_entries).where(*_conditions(wanted))
    if before_sequence is not None:
        query = query.where(audit_entries.c.sequence < before_sequence)
    rows = connection.execute(query.order_by(audit_entries.c.sequence.desc()).limit(limit))
    return [_entry(row) for row in rows]


def exported(wanted: AuditFilter, limit: int | None) -> Select[Any]:
    """The query for all entries that are wanted, newest first."""
    query = select(*_EXPORTED).where(*_conditions(wanted))
    return query.order_by(audit_entries.c.sequence.desc()).limit(limit)


def entries_after(connection: Connection, sequence: int, limit: int) -> list[Entry]:
    """The entries behind a place, in their order."""
    query = select(audit_entries).where(audit_entries.c.sequence > sequence)
    return [_entry(row) for row in connection.execute(query.order_by(audit_entries.c.sequence).limit(limit))]


def hash_at(connection: Connection, sequence: int) -> str | None:
    """The seal of the entry at a place; None when there is none."""
    query = select(audit_entries.c.hash).where(audit_entries.c.sequence == sequence)
    return connection.execute(query).scalar_one_or_none()


def _conditions(wanted: AuditFilter) -> Iterator[ColumnElement[bool]]:
    columns = audit_entries.c
    for name in _EQUAL:
        if value := getattr(wanted, name):
            yield columns[name] == value
    if wanted.action.endswith(".*"):
        # A range, which the index knows on both engines: the character behind the dot is the slash.
        yield columns.action >= wanted.action[:-1]
        yield columns.action < wanted.action[:-2] + "/"
    elif wanted.action:
        yield columns.action == wanted.action
    if wanted.since is not None:
        yield columns.occurred_at >= wanted.since
    if wanted.until is not None:
        yield columns.occurred_at < wanted.until


def _values(entry: Entry) -> dict[str, Any]:
    placed = {"sequence": entry.sequence, "recorded_at": entry.recorded_at, "hash": entry.hash}
    return vars(entry.action) | placed


def _entry(row: Row[Any]) -> Entry:
    action = Action(**{column.name: getattr(row, column.name) for column in _ACTION})
    return Entry(row.sequence, row.recorded_at, action, row.hash)
