"""Topics: which tasks wait for them, and which events had."""

from collections.abc import Collection, Sequence
from datetime import datetime
from functools import cache
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Connection,
    Select,
    String,
    and_,
    bindparam,
    exists,
    func,
    literal,
    literal_column,
    or_,
    select,
    tuple_,
)

from services.chassis.columns import Id
from services.chassis.ids import lowest_id_at
from services.tasks.models.task import TaskStatus
from services.tasks.models.topic import key_of, keys_of, matches
from services.tasks.store import batch
from services.tasks.store.batch import per_engine
from services.tasks.store.event import events_by_id
from services.tasks.store.tables import events, tasks, webhook_topics, webhooks

MAX_COUNTED = 1001
"""How far the events of one topic are counted."""
MAX_TASKS = 10_000
"""How many tasks are read to tell what they wait for."""

# To find those topics that events had lately.
_LOOKED_AT = 1000
_SEEN: batch.Columns = {"topic": String(), "is_matched": Boolean()}
# In the words of the index.
_listens = and_(tasks.c.topic_key.is_not(None), tasks.c.status != literal_column("'canceled'"))


class Listener(NamedTuple):
    """A task that waits for a topic."""

    task_id: str
    pattern: str


class Topic(NamedTuple):
    """What active tasks wait for."""

    pattern: str
    task_ids: list[str]


class SeenTopic(NamedTuple):
    """A topic of events."""

    topic: str
    events: int
    last_event_id: str
    last_published_at: datetime


def listeners(connection: Connection, topic: str, after_task_id: str | None = None) -> list[Listener]:
    """The tasks that wait for a topic, paused ones too, by id, behind `after_task_id`."""
    batch.use_indexes(connection)
    query = select(tasks.c.id, tasks.c.schedule_expr).where(tasks.c.topic_key.in_(keys_of(topic)), _listens)
    if after_task_id is not None:
        query = query.where(tasks.c.id > after_task_id)
    found = connection.execute(query.order_by(tasks.c.id))
    return [Listener(task_id, pattern) for task_id, pattern in found if matches(pattern, topic)]


def wanted(connection: Connection, topics: Collection[str]) -> set[str]:
    """Those of Baton's own topics that some task, or webhook, waits for, as the current transaction sees it.

    It is asked whenever runs end, so it takes one look into an index for each pattern that there can be.
    """
    if not topics:
        return set()
    row = connection.execute(_wanted(tuple(sorted(topics)))).one()._mapping
    return {topic for topic in topics if row[topic]}


def payload_sizes(connection: Connection, task_ids: Collection[str]) -> dict[str, int]:
    """How many characters of JSON the payloads of tasks have."""
    query = _payload_sizes(connection)
    return {row.id: row.size for row in connection.execute(query, batch.ids(connection, task_ids))}


def count_topics(connection: Connection, at_most: int) -> int:
    """How many topics, and patterns, active tasks wait for, counted up to `at_most`."""
    found = select(tasks.c.schedule_expr).distinct().where(_listens, tasks.c.status == TaskStatus.ACTIVE)
    return connection.execute(select(func.count()).select_from(found.limit(at_most).subquery())).scalar_one()


def list_topics(connection: Connection, *, limit: int, after: str | None) -> tuple[list[Topic], bool]:
    """Up to `limit` topics, and patterns, that active tasks wait for, behind `after`; and whether there are more.

    They are fewer where very many tasks wait for them: no more than MAX_TASKS are read.
    """
    found = connection.execute(_active(after).limit(MAX_TASKS + 1)).all()
    of_each = groupby(found, attrgetter("schedule_expr"))
    topics = [Topic(pattern, [row.id for row in rows]) for pattern, rows in of_each]
    if len(found) > MAX_TASKS and len(topics) > 1:
        # The tasks of the last one are not all there.
        return topics[: min(limit, len(topics) - 1)], True
    if len(topics) > limit:
        return topics[:limit], True
    is_cut = len(found) > MAX_TASKS
    return topics, is_cut and connection.execute(_active(topics[-1].pattern).limit(1)).one_or_none() is not None


def seen_topics(connection: Connection, since: datetime, limit: int) -> list[SeenTopic]:
    """Up to `limit` topics of events since a time, in the order of the database."""
    topics = distinct_topics(connection, _LOOKED_AT)
    pairs = [(topic, matched) for topic in topics for matched in (True, False)]
    rows = batch.rows(connection, _SEEN, pairs) | {"lowest": lowest_id_at(since)}
    counted: dict[str, tuple[int, str]] = {}
    for topic, count, last in connection.execute(_seen(connection), rows):
        if count:
            before, newest = counted.get(topic, (0, ""))
            counted[topic] = min(before + count, MAX_COUNTED), max(newest, last)
    newest_of = {event.id: event for event in events_by_id(connection, [last for _, last in counted.values()])}
    return [
        SeenTopic(topic, count, last, newest_of[last].published_at)
        for topic, (count, last) in sorted(counted.items())
        if last in newest_of
    ][:limit]


def distinct_topics(connection: Connection, limit: int) -> list[str]:
    """Up to `limit` topics of events: a look into an index for each, however many events it has."""
    first = select(func.min(events.c.topic).label("topic"))
    topics = first.cte("topics", recursive=True)
    following = select(func.min(events.c.topic)).where(events.c.topic > topics.c.topic).scalar_subquery()
    topics = topics.union_all(select(following).where(topics.c.topic.is_not(None)))
    found = select(topics.c.topic).where(topics.c.topic.is_not(None)).limit(limit)
    return list(connection.execute(found).scalars())


def _active(after: str | None) -> Select[Any]:
    """The active tasks that wait for events, by what they wait for, behind a topic or pattern."""
    position = (tasks.c.topic_key, tasks.c.schedule_expr)
    query = select(tasks.c.schedule_expr, tasks.c.id).where(_listens, tasks.c.status == TaskStatus.ACTIVE)
    if after is not None:
        query = query.where(tuple_(*position) > tuple_(literal(key_of(after)), literal(after)))
    return query.order_by(*position, tasks.c.id)


@cache
def _wanted(topics: tuple[str, ...]) -> Select[Any]:
    """For each topic whether anybody waits; there are few of these statements, and each is built once."""
    return select(*(or_(_task_waits(topic), _webhook_waits(topic)).label(topic) for topic in topics))


def _task_waits(topic: str) -> ColumnElement[bool]:
    return exists().where(
        tasks.c.topic_key.in_(keys_of(topic)), tasks.c.schedule_expr.in_(_patterns_of(topic)), _listens
    )


def _webhook_waits(topic: str) -> ColumnElement[bool]:
    return exists().where(
        webhook_topics.c.topic_key.in_(keys_of(topic)),
        webhook_topics.c.pattern.in_(_patterns_of(topic)),
        webhooks.c.id == webhook_topics.c.webhook_id,
        webhooks.c.enabled,
    )


def _patterns_of(topic: str) -> Sequence[str]:
    """All that can stand for one of Baton's own topics, which have two segments."""
    first, _ = topic.split(".")
    return topic, f"{first}.*", f"{first}.**"


@per_engine
def _payload_sizes(for_postgres: bool) -> Select[Any]:
    size = func.octet_length if for_postgres else func.length
    return select(tasks.c.id, size(tasks.c.payload.cast(String)).label("size")).where(
        batch.among(tasks.c.id, for_postgres)
    )


@per_engine
def _seen(for_postgres: bool) -> Select[Any]:
    pair = batch.given(_SEEN, for_postgres)
    of_pair = (
        events.c.topic == pair.c.topic,
        events.c.is_matched == pair.c.is_matched,
        events.c.id >= bindparam("lowest", type_=Id()),
    )
    some = select(literal(1)).where(*of_pair).limit(MAX_COUNTED).correlate(pair).subquery()
    count = select(func.count()).select_from(some).scalar_subquery()
    newest = select(events.c.id).where(*of_pair).order_by(events.c.id.desc()).limit(1).correlate(pair)
    return select(pair.c.topic, count, newest.scalar_subquery())
