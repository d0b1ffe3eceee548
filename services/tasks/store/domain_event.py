"""What Baton itself publishes: that runs ended, and what became of tasks.

An event is stored, in the transaction of what it tells, when some task or webhook waits for its topic, and only then:
runs end many thousand times a second, and mostly nobody wants to know. The dispatcher matches it a moment later.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection, Row, Select, select

from services.chassis.ids import id_at
from services.tasks.models.event import Event, Origin
from services.tasks.models.run import Run, RunError, RunStatus
from services.tasks.store import batch
from services.tasks.store.batch import per_engine
from services.tasks.store.event import add_events
from services.tasks.store.tables import events, runs
from services.tasks.store.topic import wanted

RUN_TOPICS = {
    status: f"run.{status}"
    for status in (
        RunStatus.SUCCEEDED,
        RunStatus.FAILED,
        RunStatus.CANCELED,
        RunStatus.SKIPPED,
        RunStatus.AWAITING_APPROVAL,
    )
}
"""What is published of a run that comes into a status; of the other statuses nothing is."""

_NAMES = ("id", "task_id", "task", "batch_id", "role", "created_by", "attempt", "reported", "retry_of")
_SEEN = [runs.c[name] for name in (*_NAMES, "traceparent", "event_depth")]


@dataclass(frozen=True)
class DomainEvent:
    """Something to publish."""

    topic: str
    payload: dict[str, Any] = field(default_factory=dict)
    traceparent: str = ""
    depth: int = 0


@dataclass(frozen=True)
class RunChange:
    """A run that has come into a status."""

    run_id: str
    status: RunStatus
    error: RunError | None


def publish(connection: Connection, told: Sequence[DomainEvent], now: datetime) -> int:
    """Stores those of the events that somebody waits for; answers how many."""
    topics = wanted(connection, {event.topic for event in told})
    new = [_event(event, now) for event in told if event.topic in topics]
    add_events(connection, new)
    return len(new)


def publish_runs(connection: Connection, changes: Sequence[RunChange], now: datetime) -> int:
    """Publishes what has become of live runs, while they still are; answers of how many."""
    topics = wanted(connection, {RUN_TOPICS[change.status] for change in changes})
    told = {change.run_id: change for change in changes if RUN_TOPICS[change.status] in topics}
    if not told:
        return 0
    found = connection.execute(_runs(connection), batch.ids(connection, told)).all()
    add_events(connection, [_event(_of_run(row, told[row.id]), now) for row in found])
    return len(found)


def publish_run(connection: Connection, run: Run, now: datetime) -> int:
    """Publishes what has become of one run, live or finished, unless it is queued or under way; answers of how many."""
    if run.status not in RUN_TOPICS:
        return 0
    told = DomainEvent(RUN_TOPICS[run.status], _told(run, run.status, run.error), run.traceparent, 1)
    return publish(connection, [told], now)


def _of_run(row: Row[Any], change: RunChange) -> DomainEvent:
    payload = _told(row, change.status, change.error)
    return DomainEvent(RUN_TOPICS[change.status], payload, row.traceparent, (row.event_depth or 0) + 1)


def _told(run: Run | Row[Any], status: RunStatus, error: RunError | None) -> dict[str, Any]:
    """A run, as events tell of it."""
    values = {name: getattr(run, name) for name in _NAMES}
    return {"run_id": values.pop("id")} | values | {"status": status.value} | _failure(error)


def _failure(error: RunError | None) -> dict[str, Any]:
    """Why a run failed, but for the message, which can hold what not every task should see."""
    if error is None:
        return {"error_class": None, "step_id": None}
    return {"error_class": error.error_class.value, "step_id": error.step_id or None}


def publish_told(connection: Connection, told: Mapping[str, tuple[DomainEvent, datetime]]) -> int:
    """Stores what other contexts tell of, by the events' ids and with their times; answers how many are new and wanted.

    Those that are there already stay as they are.
    """
    topics = wanted(connection, {event.topic for event, _ in told.values()})
    there = set(connection.execute(select(events.c.id).where(events.c.id.in_(told))).scalars())
    new = [
        replace(_event(event, at), id=event_id)
        for event_id, (event, at) in told.items()
        if event.topic in topics and event_id not in there
    ]
    add_events(connection, new)
    return len(new)


def _event(told: DomainEvent, now: datetime) -> Event:
    return Event(
        id=id_at(now),
        topic=told.topic,
        payload=told.payload,
        payload_bytes=len(orjson.dumps(told.payload)),
        origin=Origin.BATON,
        source_agent_id=None,
        published_by=None,
        depth=told.depth,
        traceparent=told.traceparent,
        replay_of=None,
        published_at=now,
    )


@per_engine
def _runs(for_postgres: bool) -> Select[Any]:
    return select(*_SEEN).where(batch.among(runs.c.id, for_postgres))
