"""However many tasks wait for events, and however many events there were, little is read for each."""

import re
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, insert, select

from services.chassis.clock import Clock
from services.chassis.ids import id_at, new_id
from services.tasks.models.event import Event, EventFilter, Origin
from services.tasks.models.topic import key_of
from services.tasks.store import event as event_store
from services.tasks.store import tables
from services.tasks.store import topic as topic_store
from services.tasks.store.event_list import list_events
from tests.integration.tasks.events import waiting_for
from tests.integration.tasks.planning import plans
from tests.integration.tasks.running import Tasks

TASKS = 10_000
_EVENTS = 6_000
_MOST = 260  # 51 of each of two topics, matched and not, and what they are merged with


def _add_tasks(connection: Connection, clock: Clock) -> None:
    row = connection.execute(select(tables.tasks)).one()._asdict()
    patterns = [f"order.n{number}" if number % 2 else f"order.n{number}.*" for number in range(TASKS)]
    rows = [row | {"id": new_id(), "schedule_expr": one, "topic_key": key_of(one)} for one in patterns]
    connection.execute(insert(tables.tasks), rows)


def _add_events(connection: Connection, clock: Clock) -> None:
    now, events = clock.now(), []
    for number in range(_EVENTS):
        at = now - timedelta(seconds=_EVENTS - number)
        matched = number % 1000 == 7
        events.append(
            Event(
                id=id_at(at), topic=f"order.t{number % 20}", payload={}, payload_bytes=2, origin=Origin.BATON,
                source_agent_id=None, published_by=None, depth=0, traceparent="", replay_of=None, published_at=at,
                dispatched_at=None if number in (5, 50) else at, matched_tasks=int(matched), triggered_runs=0,
            )
        )  # fmt: skip
    event_store.add_events(connection, events)


@pytest.fixture
async def full(tasks: Tasks, engine: str, request: pytest.FixtureRequest) -> Tasks:
    """A service with ten thousand tasks that wait, and some thousand events, which PostgreSQL has counted."""
    await waiting_for(tasks, "example")
    await tasks.database.transact(_add_tasks)
    await tasks.database.transact(_add_events)
    if engine == "postgres":
        with psycopg.connect(request.getfixturevalue("postgres_database"), autocommit=True) as connection:
            connection.execute("VACUUM (ANALYZE) tasks.tasks, tasks.events")
    return tasks


def assert_little_is_read(found: str, most: float = _MOST) -> None:
    assert not re.search(r"Seq Scan on (tasks|events)|SCAN (tasks|events|found)(?! USING (COVERING )?INDEX)", found), (
        found
    )
    handled = re.findall(r"(?:rows=|Rows Removed by \w+(?: \w+)*: )(\d+(?:\.\d+)?)", found)
    assert max((float(rows) for rows in handled), default=0) <= most, found


async def test_which_messages_are_events_is_found_by_their_keys(full: Tasks) -> None:
    keys = [f"events/{number}-0" for number in range(100)]
    (found,) = await plans(full, lambda connection, clock: event_store.known_source_keys(connection, keys))
    assert "ix_events_source_key" in found
    assert_little_is_read(found, 0)


async def test_the_tasks_of_a_topic_are_found_by_it(full: Tasks) -> None:
    for topic in ("order.n4711", "order.n4712.paid", "order.nowhere", "a.b.c.d.e.f.g.h"):
        (found,) = await plans(full, lambda connection, clock, topic=topic: topic_store.listeners(connection, topic))  # type: ignore[misc]
        assert "ix_tasks_topic" in found
        assert_little_is_read(found, 2)


async def test_whether_anybody_waits_for_the_ends_of_runs_costs_a_few_looks(full: Tasks) -> None:
    topics = ["run.succeeded", "run.failed", "run.canceled", "run.skipped"]
    (found,) = await plans(full, lambda connection, clock: topic_store.wanted(connection, topics))
    assert found.count("ix_tasks_topic") >= 4
    assert_little_is_read(found, 1)


async def test_what_is_still_to_be_matched_is_not_looked_for_among_all(full: Tasks) -> None:
    found = await plans(full, lambda connection, clock: event_store.lock_undispatched(connection, 100, 1000))
    assert sum("ix_events_undispatched" in one for one in found) == 1
    for one in found:
        assert_little_is_read(one, 2)


_FILTERS = {
    "none": EventFilter(),
    "topic": EventFilter(topic="order.t3"),
    "topic, matched": EventFilter(topic="order.t7", matched=True),
    "topic, matched rarely": EventFilter(topic="order.t3", matched=True),
    "topic, unmatched": EventFilter(topic="order.t3", matched=False),
    "pattern": EventFilter(topic="*.t3"),
    "no such topic": EventFilter(topic="nowhere"),
    "no such pattern": EventFilter(topic="nowhere.**"),
    "matched": EventFilter(matched=True),
    "unmatched": EventFilter(matched=False),
}


@pytest.mark.parametrize("name", _FILTERS)
async def test_a_page_with_any_filter_reads_little_more_than_itself(full: Tasks, name: str) -> None:
    deep = id_at(full.clock.now() - timedelta(seconds=_EVENTS // 2))
    for before_id in (None, deep):

        def page(connection: Connection, clock: Clock, before_id: Any = before_id) -> None:
            list_events(connection, _FILTERS[name], limit=51, before_id=before_id)

        for found in await plans(full, page):
            assert_little_is_read(found)


async def test_topics_are_told_without_reading_their_events(full: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic_store, "MAX_TASKS", 500)
    since = full.clock.now() - timedelta(hours=24)
    for work in (
        lambda connection, clock: topic_store.seen_topics(connection, since, 200),
        lambda connection, clock: topic_store.distinct_topics(connection, 200),
        lambda connection, clock: topic_store.list_topics(connection, limit=20, after="order.n4711"),
    ):
        for found in await plans(full, work):
            assert_little_is_read(found, topic_store.MAX_COUNTED)
