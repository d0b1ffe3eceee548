"""The feed: which positions are wanted, and what is at them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, Select, literal, select

from services.sessions.models.feed import FeedEntry, FeedFilter, FeedSource
from services.sessions.store import agent_log, chat, system_log
from services.sessions.store.order import first_rows
from services.sessions.store.positions import SOURCES, span


class Place(NamedTuple):
    """Where an entry is."""

    source: FeedSource
    position: int


def newest(
    connection: Connection, wanted: FeedFilter, *, limit: int, before: int | None = None, offset: int = 0
) -> list[Place]:
    """The places of up to `limit` entries, newest first, behind those that are passed over."""
    queries = _queries(connection, wanted)
    if before is not None:
        queries = [query.where(query.selected_columns.position < before) for query in queries]
    return _places(first_rows(connection, queries, _order(wanted), limit, offset=offset))


def following(connection: Connection, wanted: FeedFilter, *, after: int, to: int, limit: int) -> list[Place]:
    """The places of up to `limit` entries behind one position and up to another, oldest first."""
    queries = [
        query.where(query.selected_columns.position > after, query.selected_columns.position <= to)
        for query in _queries(connection, wanted)
    ]
    return _places(first_rows(connection, queries, _order(wanted), limit, newest_first=False))


def entries(connection: Connection, places: Sequence[Place]) -> list[FeedEntry]:
    """What is at the places, in their order; what was deleted meanwhile is left out."""

    def at(source: FeedSource) -> list[int]:
        return [place.position for place in places if place.source is source]

    found: dict[int, FeedEntry] = {}
    for entry in agent_log.at(connection, at(FeedSource.AGENT_LOG)):
        found[entry.position] = entry
    for line in system_log.at(connection, at(FeedSource.SYSTEM_LOG)):
        found[line.position] = line
    for message in chat.at(connection, at(FeedSource.ORCHESTRATOR_CHAT)):
        found[message.position] = message
    return [found[place.position] for place in places if place.position in found]


def _queries(connection: Connection, wanted: FeedFilter) -> list[Select[Any]]:
    """The places of each source, one query for each index that leads to them."""
    queries = []
    for source in sorted(wanted.sources):
        table, time = SOURCES[source]
        query = select(table.c.position, time.label("time"), literal(source.value).label("source"))
        query = query.where(*span(connection, table, time, wanted.since, wanted.until))
        queries += [query.where(*conditions) for conditions in _conditions(source, wanted)]
    return queries


def _conditions(source: FeedSource, wanted: FeedFilter) -> list[list[ColumnElement[bool]]]:
    if wanted.task_slug and source is not FeedSource.AGENT_LOG:
        return []
    columns = SOURCES[source].table.c
    # Said with what the index is for, which a parameter does not tell.
    conditions = [columns.task_slug == wanted.task_slug, columns.task_slug != ""] if wanted.task_slug else []
    if not wanted.agent_id:
        return [conditions]
    if source is FeedSource.ORCHESTRATOR_CHAT:
        # The orchestrator is in all of its chat, and never the agent of a message.
        return [[columns.agent_id == wanted.agent_id], [columns.orchestrator_agent_id == wanted.agent_id]]
    return [[*conditions, columns.agent_id == wanted.agent_id]]


def _order(wanted: FeedFilter) -> tuple[str, ...]:
    """What ends the index that is read: with a filter its own, else the primary key."""
    return ("position", "time") if wanted.agent_id or wanted.task_slug else ("position",)


def _places(rows: Sequence[Row[Any]]) -> list[Place]:
    return [Place(FeedSource(row.source), row.position) for row in rows]
