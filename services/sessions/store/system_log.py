"""The system log, as rows."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, Select, select

from services.sessions.models.log import LogLevel, SystemLog, SystemLogFilter
from services.sessions.store.any_case import in_any_case
from services.sessions.store.many import insert_many
from services.sessions.store.order import first_rows
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
    columns, stopped_at = system_logs.c, None
    conditions = [*_conditions(wanted)]
    conditions += span(connection, system_logs, columns.recorded_at, wanted.since, wanted.until)
    if before is not None:
        conditions.append(columns.position < before)
    order = ("position", "recorded_at") if wanted.levels or wanted.agent_id or wanted.workflow_id else ("position",)
    if wanted.message_contains:
        window = _by_level(select(columns.position, columns.recorded_at).where(*conditions), wanted)
        looked_at = first_rows(connection, window, order, LOOKED_THROUGH)
        if not looked_at:
            return Found([], None)
        stopped_at = looked_at[-1].position if len(looked_at) == LOOKED_THROUGH else None
        conditions += [
            columns.position >= looked_at[-1].position,
            columns.message.regexp_match(in_any_case(wanted.message_contains)),
        ]
    queries = _by_level(select(system_logs).where(*conditions), wanted)
    return Found([_line(row) for row in first_rows(connection, queries, order, limit)], stopped_at)


def at(connection: Connection, positions: Sequence[int]) -> list[SystemLog]:
    """The lines at some positions of the feed."""
    if not positions:
        return []
    return [_line(row) for row in connection.execute(select(system_logs).where(system_logs.c.position.in_(positions)))]


def _by_level(query: Select[Any], wanted: SystemLogFilter) -> list[Select[Any]]:
    """The query for each level that is wanted, whose index is read from its end; itself for all of them."""
    return [query.where(system_logs.c.level == level) for level in dict.fromkeys(wanted.levels)] or [query]


def _conditions(wanted: SystemLogFilter) -> Iterator[ColumnElement[bool]]:
    if wanted.agent_id:
        yield system_logs.c.agent_id == wanted.agent_id
    if wanted.workflow_id:
        yield system_logs.c.workflow_id == wanted.workflow_id


def _line(row: Row[Any]) -> SystemLog:
    fields = row._asdict()
    return SystemLog(**fields | {"level": LogLevel(fields["level"])})
