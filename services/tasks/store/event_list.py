"""Which events are on a page: found without reading what lies between them.

The index of topics goes on with whether a task matched, and then with ids: for each pair of the two the newest events
are a range that is read from its end, and a page is the newest of those.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Boolean, ColumnElement, Connection, Select, String, desc, select, true

from services.chassis.ids import lowest_id_after, lowest_id_at
from services.tasks.models.event import Event, EventFilter
from services.tasks.models.topic import as_expression, is_pattern, matches
from services.tasks.store import batch
from services.tasks.store.event import events_by_id
from services.tasks.store.tables import events
from services.tasks.store.topic import distinct_topics

# Of more topics than these a pattern is looked for among all events, the newest first: many of these have one.
_TOPICS = 200
_TOPICS_LOOKED_AT = 2000
_PAIR: batch.Columns = {"topic": String(), "is_matched": Boolean()}


def list_events(
    connection: Connection, wanted: EventFilter, *, limit: int, before_id: str | None = None
) -> list[Event]:
    """Up to `limit` events, newest first, with smaller ids than `before_id`, without payloads."""
    topics = _topics(connection, wanted.topic)
    reach = _reach(wanted, before_id)
    parameters: dict[str, Any] = {}
    if topics is None:
        query = _among_all(wanted, reach)
    else:
        query, parameters = _of_each(connection, topics, wanted, reach, limit)
    ids = query.order_by(desc("id")).limit(limit)
    return events_by_id(connection, list(connection.execute(ids, parameters).scalars()))


def _topics(connection: Connection, pattern: str) -> list[str] | None:
    """The topics that a filter lets through; None for too many to look for one by one."""
    if not pattern:
        return None
    if not is_pattern(pattern):
        return [pattern]
    found = distinct_topics(connection, _TOPICS_LOOKED_AT + 1)
    matching = [topic for topic in found if matches(pattern, topic)]
    return None if len(found) > _TOPICS_LOOKED_AT or len(matching) > _TOPICS else matching


def _reach(wanted: EventFilter, before_id: str | None) -> list[ColumnElement[bool]]:
    reach: list[ColumnElement[bool]] = []
    if wanted.since is not None:
        reach += [events.c.id >= lowest_id_at(wanted.since), events.c.published_at >= wanted.since]
    if wanted.until is not None:
        reach += [events.c.id < lowest_id_after(wanted.until), events.c.published_at < wanted.until]
    if before_id is not None:
        reach.append(events.c.id < before_id)
    return reach


def _among_all(wanted: EventFilter, reach: Sequence[ColumnElement[bool]]) -> Select[Any]:
    query = select(events.c.id.label("id")).where(*reach)
    if wanted.matched is not None:
        query = query.where(events.c.is_matched == wanted.matched)
    return query.where(events.c.topic.regexp_match(as_expression(wanted.topic))) if wanted.topic else query


def _of_each(
    connection: Connection,
    topics: Sequence[str],
    wanted: EventFilter,
    reach: Sequence[ColumnElement[bool]],
    limit: int,
) -> tuple[Select[Any], dict[str, Any]]:
    states = (True, False) if wanted.matched is None else (wanted.matched,)
    postgres = batch.is_postgres(connection)
    pair = batch.given(_PAIR, postgres)
    newest = (
        select(events.c.id)
        .where(events.c.topic == pair.c.topic, events.c.is_matched == pair.c.is_matched, *reach)
        .order_by(events.c.id.desc())
        .limit(limit)
        .correlate(pair)
    )
    rows = batch.rows(connection, _PAIR, [(topic, state) for topic in topics for state in states])
    if postgres:
        each = newest.lateral("newest")
        return select(each.c.id.label("id")).select_from(pair.join(each, true())), rows
    found = events.alias("found")
    return select(found.c.id.label("id")).select_from(pair.join(found, found.c.id.in_(newest))), rows
