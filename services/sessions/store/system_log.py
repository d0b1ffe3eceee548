"""The system log, as rows."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, func, select

from services.sessions.models.log import LogLevel, SystemLog, SystemLogFilter
from services.sessions.store.any_case import in_any_case
from services.sessions.store.many import insert_many
from services.sessions.store.positions import span
from services.sessions.store.tables import system_logs

LOOKED_THROUGH = 20_000
"""How many lines are looked through at once for a text."""


class Found(NamedTuple):
    """Lines, and how far was looked for them."""

    lines: list[SystemLog]
    stopped_at: int | None
    """The lowest position that was looked at, when there may be more behind it; else None."""


def add(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Stores lines, each as all its columns."""
    insert_many(connection, system_logs, rows)


def list_lines(connection: Connection, wanted: SystemLogFilter, *, limit: int, before: int | None = None) -> Found:
    """Up to `limit` lines, newest first, at lower positions than `before`."""
    columns = system_logs.c
    conditions = [*_conditions(wanted)]
    conditions += span(connection, system_logs, columns.recorded_at, wanted.since, wanted.until)
    if before is not None:
        conditions.append(columns.position < before)
    stopped_at = None
    if wanted.message_contains:
        window = select(columns.position).where(*conditions).order_by(columns.position.desc()).limit(LOOKED_THROUGH)
        looked_at = window.subquery()
        counted = select(func.count(), func.min(looked_at.c.position))
        count, lowest = connection.execute(counted.select_from(looked_at)).one()
        stopped_at = lowest if count == LOOKED_THROUGH else None
        if lowest is None:
            return Found([], None)
        conditions += [columns.position >= lowest, columns.message.regexp_match(in_any_case(wanted.message_contains))]
    query = select(system_logs).where(*conditions).order_by(columns.position.desc()).limit(limit)
    return Found([_line(row) for row in connection.execute(query)], stopped_at)


def at(connection: Connection, positions: Sequence[int]) -> list[SystemLog]:
    """The lines at some positions of the feed."""
    if not positions:
        return []
    return [_line(row) for row in connection.execute(select(system_logs).where(system_logs.c.position.in_(positions)))]


def _conditions(wanted: SystemLogFilter) -> Iterator[ColumnElement[bool]]:
    if wanted.levels:
        yield system_logs.c.level.in_(wanted.levels)
    if wanted.agent_id:
        yield system_logs.c.agent_id == wanted.agent_id
    if wanted.workflow_id:
        yield system_logs.c.workflow_id == wanted.workflow_id


def _line(row: Row[Any]) -> SystemLog:
    fields = row._asdict()
    return SystemLog(**fields | {"level": LogLevel(fields["level"])})
