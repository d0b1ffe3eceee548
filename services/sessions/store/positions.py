"""Positions in the feed: those of what is new, those of a time, and what is at the oldest of them."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Column, ColumnElement, Connection, Select, Table, delete, false, select, update

from services.sessions.models.feed import FeedHead, FeedSource, Taken
from services.sessions.store.tables import agent_logs, chat_messages, feed_head, system_logs


class Kept(NamedTuple):
    """Where a source is kept, and when each of its entries was written."""

    table: Table
    time: Column[Any]


SOURCES = {
    FeedSource.AGENT_LOG: Kept(agent_logs, agent_logs.c.recorded_at),
    FeedSource.SYSTEM_LOG: Kept(system_logs, system_logs.c.recorded_at),
    FeedSource.ORCHESTRATOR_CHAT: Kept(chat_messages, chat_messages.c.created_at),
}


def head(connection: Connection) -> FeedHead:
    """How far the feed has come: everything up to there can be seen."""
    return _head(connection, select(feed_head))


def take(connection: Connection, count: int, now: datetime) -> Taken:
    """Positions for `count` entries that this transaction adds; others wait until it ends."""
    last = _head(connection, select(feed_head).with_for_update())
    recorded_at = max(last.recorded_at, now)
    connection.execute(update(feed_head).values(position=last.position + count, recorded_at=recorded_at))
    return Taken(last.position + 1, recorded_at)


def delete_oldest(connection: Connection, source: FeedSource, *, before: datetime, limit: int) -> int:
    """Deletes up to `limit` of a source's oldest entries, those of before then; answers how many were that old."""
    table, time = SOURCES[source]
    oldest = connection.execute(select(table.c.position, time).order_by(table.c.position).limit(limit)).all()
    # Times never go back as positions go on: the old ones are the first.
    old = [position for position, recorded_at in oldest if recorded_at < before]
    if old:
        connection.execute(delete(table).where(table.c.position <= old[-1]))
        later = update(feed_head).where(feed_head.c.pruned_to < old[-1])
        connection.execute(later.values(pruned_to=old[-1]))
    return len(old)


def span(
    connection: Connection, table: Table, time: Column[Any], since: datetime | None, until: datetime | None
) -> Iterator[ColumnElement[bool]]:
    """The conditions that entries were written within some time, by their positions, which have the same order."""
    if since is not None:
        first = _first_from(connection, table, time, since)
        yield false() if first is None else table.c.position >= first
    if until is not None and (end := _first_from(connection, table, time, until)) is not None:
        yield table.c.position < end


def _first_from(connection: Connection, table: Table, time: Column[Any], instant: datetime) -> int | None:
    query = select(table.c.position).where(time >= instant).order_by(time, table.c.position).limit(1)
    return connection.execute(query).scalar_one_or_none()


def _head(connection: Connection, query: Select[Any]) -> FeedHead:
    row = connection.execute(query).one()
    return FeedHead(row.position, row.recorded_at, row.pruned_to)
