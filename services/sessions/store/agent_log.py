"""The logs of agents, as rows."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, exists, select, tuple_

from services.chassis.upsert import upsert
from services.sessions.models.log import AgentLog, AgentLogFilter, EventCategory
from services.sessions.store.many import insert_many
from services.sessions.store.order import first_rows
from services.sessions.store.positions import span
from services.sessions.store.tables import agent_log_heads, agent_logs

Work = tuple[str, str]
"""An agent, and the slug of a piece of its work."""

_h = agent_log_heads.c
_ORDER = ("position", "recorded_at")


def take_indexes(connection: Connection, counts: Mapping[Work, int], now: datetime) -> dict[Work, int]:
    """The first of so many numbers for entries of each piece of work; others wait until this transaction ends.

    Each agent must be there.
    """
    statement = upsert(connection, agent_log_heads)
    taken = statement.on_conflict_do_update(
        index_elements=[_h.agent_id, _h.task_slug],
        set_={"next_index": _h.next_index + statement.excluded.next_index, "used_at": statement.excluded.used_at},
    ).returning(_h.agent_id, _h.task_slug, _h.next_index)
    # In one order, so that two who write about the same work do not wait for each other.
    rows = [
        {"agent_id": agent_id, "task_slug": slug, "next_index": count, "used_at": now}
        for (agent_id, slug), count in sorted(counts.items())
    ]
    ends = {(row.agent_id, row.task_slug): row.next_index for row in connection.execute(taken, rows)}
    return {work: ends[work] - count for work, count in counts.items()}


def add(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Stores entries, each as all its columns."""
    insert_many(connection, agent_logs, rows)


def list_entries(
    connection: Connection, wanted: AgentLogFilter, *, limit: int, before: int | None = None
) -> list[AgentLog]:
    """Up to `limit` entries, newest first, at lower positions than `before`."""
    query = select(agent_logs).where(*_conditions(wanted))
    query = query.where(*span(connection, agent_logs, agent_logs.c.recorded_at, wanted.since, wanted.until))
    if before is not None:
        query = query.where(agent_logs.c.position < before)
    # For each type its own index, read from its end.
    types = [query.where(agent_logs.c.event_type == name) for name in dict.fromkeys(wanted.event_types)]
    return [_entry(row) for row in first_rows(connection, types or [query], _ORDER, limit)]


def tail(connection: Connection, agent_id: str, task_slug: str, *, limit: int, offset: int) -> list[AgentLog]:
    """Up to `limit` of the last entries about a piece of work, oldest first, without the newest `offset`."""
    query = select(agent_logs).where(agent_logs.c.agent_id == agent_id, agent_logs.c.task_slug == task_slug)
    query = query.order_by(agent_logs.c.entry_index.desc()).limit(limit).offset(offset)
    return [_entry(row) for row in connection.execute(query)][::-1]


def latest_slug(connection: Connection, agent_id: str) -> str:
    """The piece of work that an agent has logged last; empty for none."""
    columns = agent_logs.c
    query = select(columns.task_slug, columns.position, columns.recorded_at).where(columns.agent_id == agent_id)
    return next((str(row.task_slug) for row in first_rows(connection, [query], _ORDER, 1)), "")


def next_index(connection: Connection, agent_id: str, task_slug: str) -> int:
    """The number that the next entry about a piece of work will have."""
    query = select(_h.next_index).where(_h.agent_id == agent_id, _h.task_slug == task_slug)
    return connection.execute(query).scalar_one_or_none() or 0


def at(connection: Connection, positions: Sequence[int]) -> list[AgentLog]:
    """The entries at some positions of the feed."""
    if not positions:
        return []
    return [_entry(row) for row in connection.execute(select(agent_logs).where(agent_logs.c.position.in_(positions)))]


def delete_unused_heads(connection: Connection, *, before: datetime, limit: int) -> int:
    """Forgets the numbers of up to `limit` pieces of work without entries, not written about since; answers how many.

    Should somebody write about one again, its numbers begin anew.
    """
    logged = exists().where(agent_logs.c.agent_id == _h.agent_id, agent_logs.c.task_slug == _h.task_slug)
    unused = select(_h.agent_id, _h.task_slug).where(_h.used_at < before, ~logged)
    # Said again outside: somebody may have written meanwhile.
    chosen = tuple_(_h.agent_id, _h.task_slug).in_(unused.order_by(_h.used_at).limit(limit))
    return connection.execute(delete(agent_log_heads).where(chosen, _h.used_at < before)).rowcount


def _conditions(wanted: AgentLogFilter) -> Iterator[ColumnElement[bool]]:
    columns = agent_logs.c
    yield columns.agent_id == wanted.agent_id
    for name in ("task_slug", "event_category", "session_id", "workflow_id"):
        if value := getattr(wanted, name):
            yield columns[name] == value
    # Said as well, because the indexes of these are for such alone, which a parameter does not tell.
    for name in ("task_slug", "session_id"):
        if getattr(wanted, name):
            yield columns[name] != ""


def _entry(row: Row[Any]) -> AgentLog:
    fields = row._asdict()
    return AgentLog(**fields | {"event_category": EventCategory(fields["event_category"])})
