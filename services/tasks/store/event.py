"""Events, and what they did to tasks."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any

from sqlalchemy import (
    Boolean,
    Connection,
    Insert,
    Integer,
    Row,
    SmallInteger,
    String,
    Update,
    delete,
    func,
    insert,
    select,
    update,
)

from services.chassis.columns import Id, Json, Timestamp
from services.chassis.ids import lowest_id_after
from services.tasks.models.event import Delivery, DeliveryOutcome, Event, Origin
from services.tasks.store import batch
from services.tasks.store.batch import per_engine
from services.tasks.store.tables import event_deliveries, events, webhook_deliveries

_EVENT: batch.Columns = {
    "id": Id(),
    "topic": String(),
    "payload": Json,
    "payload_bytes": Integer(),
    "origin": String(),
    "source_agent_id": Id(),
    "published_by": Id(),
    "depth": SmallInteger(),
    "traceparent": String(),
    "replay_of": Id(),
    "published_at": Timestamp(),
    "dispatched_at": Timestamp(),
    "dispatched_to": Id(),
    "matched_tasks": Integer(),
    "triggered_runs": Integer(),
    "source_key": String(),
    "is_matched": Boolean(),
}
_PROGRESS: batch.Columns = {
    name: kind
    for name, kind in _EVENT.items()
    if name in ("id", "dispatched_at", "dispatched_to", "matched_tasks", "triggered_runs", "is_matched")
}
_DELIVERY: batch.Columns = {
    "event_id": Id(),
    "task_id": Id(),
    "outcome": String(),
    "reason": String(),
    "run_id": Id(),
    "decided_at": Timestamp(),
}
_event_values = attrgetter(*list(_EVENT)[:-1])
_progress_values = attrgetter(*list(_PROGRESS)[:-1])
_delivery_values = attrgetter(*_DELIVERY)
_MODEL = [events.c[name] for name in _EVENT if name != "is_matched"]
_BUT_PAYLOAD = [column for column in _MODEL if column.name != "payload"]


def add_events(connection: Connection, new: Sequence[Event]) -> None:
    """Stores new events."""
    if new:
        rows = ((*_event_values(event), event.matched_tasks > 0) for event in new)
        connection.execute(_add(connection), batch.rows(connection, _EVENT, rows))


def save_progress(connection: Connection, changed: Sequence[Event]) -> None:
    """Stores how far locked events have come."""
    if changed:
        rows = ((*_progress_values(event), event.matched_tasks > 0) for event in changed)
        connection.execute(_save(connection), batch.rows(connection, _PROGRESS, rows))


def add_deliveries(connection: Connection, new: Sequence[Delivery]) -> None:
    """Records what events did to tasks; that an event did anything to a task twice, the table does not allow."""
    if new:
        connection.execute(_deliver(connection), batch.rows(connection, _DELIVERY, map(_delivery_values, new)))


def lock_undispatched(connection: Connection, limit: int, max_bytes: int) -> list[Event]:
    """The oldest events that have still to be matched with tasks, locked; those locked elsewhere are passed over.

    They are `limit` at most, and none is added once their payloads have `max_bytes`.
    """
    batch.use_indexes(connection)
    waiting = (
        select(events.c.id, events.c.payload_bytes)
        .where(events.c.dispatched_at.is_(None))
        .order_by(events.c.id)
        .limit(limit)
        .with_for_update(key_share=True, skip_locked=True)
    )
    return _within(connection, connection.execute(waiting).all(), max_bytes, oldest_first=True)


def newest_events(connection: Connection, limit: int, max_bytes: int) -> list[Event]:
    """The newest events, as many as have `max_bytes` of payload together, and one at least."""
    newest = select(events.c.id, events.c.payload_bytes).order_by(events.c.id.desc()).limit(limit)
    return _within(connection, connection.execute(newest).all(), max_bytes, oldest_first=False)


def known_source_keys(connection: Connection, keys: Sequence[str]) -> set[str]:
    """Those messages of a stream of which events have been made already."""
    batch.use_indexes(connection)
    found = select(events.c.source_key).where(events.c.source_key.in_(keys))
    return {key for key in connection.execute(found).scalars() if key is not None}


def get_event(connection: Connection, event_id: str) -> Event | None:
    """One event by its id."""
    row = connection.execute(select(*_MODEL).where(events.c.id == event_id)).one_or_none()
    return None if row is None else event_from_row(row)


def events_by_id(connection: Connection, event_ids: Sequence[str]) -> list[Event]:
    """The events with these ids, newest first, without payloads."""
    if not event_ids:
        return []
    among = batch.among(events.c.id, batch.is_postgres(connection))
    query = select(*_BUT_PAYLOAD).where(among).order_by(events.c.id.desc())
    return [event_from_row(row) for row in connection.execute(query, batch.ids(connection, event_ids))]


def list_deliveries(
    connection: Connection,
    event_id: str,
    outcome: DeliveryOutcome | None = None,
    *,
    limit: int,
    after_task_id: str | None = None,
) -> list[Delivery]:
    """What an event did to up to `limit` tasks, all or those with one outcome, by task id, behind `after_task_id`."""
    query = select(event_deliveries).where(event_deliveries.c.event_id == event_id)
    if outcome is not None:
        query = query.where(event_deliveries.c.outcome == outcome.value)
    if after_task_id is not None:
        query = query.where(event_deliveries.c.task_id > after_task_id)
    rows = connection.execute(query.order_by(event_deliveries.c.task_id).limit(limit))
    return [_delivery_from_row(row) for row in rows]


def last_delivery(connection: Connection, task_id: str) -> Delivery | None:
    """What the newest event that a task was matched with did to it."""
    query = select(event_deliveries).where(event_deliveries.c.task_id == task_id)
    row = connection.execute(query.order_by(event_deliveries.c.event_id.desc()).limit(1)).one_or_none()
    return None if row is None else _delivery_from_row(row)


def delete_events(connection: Connection, cutoff: datetime, limit: int, max_deliveries: int) -> tuple[int, bool]:
    """Deletes old events that have been matched with all tasks, the oldest first, and their deliveries.

    They are `limit` at most, and none is added once there are `max_deliveries` of them. Answers how many they were, and
    whether there are none left.
    """
    of_event = webhook_deliveries.c.event_id == events.c.id
    sent = select(func.count()).select_from(webhook_deliveries).where(of_event).scalar_subquery()
    old = select(events.c.id, events.c.matched_tasks + sent).where(*_is_old(cutoff)).order_by(events.c.id).limit(limit)
    found = connection.execute(old).all()
    ids, deliveries = [], 0
    for event_id, matched in found:
        if deliveries >= max_deliveries:
            break
        ids.append(event_id)
        deliveries += matched
    if ids:
        postgres, given = batch.is_postgres(connection), batch.ids(connection, ids)
        for table in (event_deliveries, webhook_deliveries):
            connection.execute(delete(table).where(batch.among(table.c.event_id, postgres)), given)
        connection.execute(delete(events).where(batch.among(events.c.id, postgres)), given)
    return len(ids), len(found) < limit and len(ids) == len(found)


def old_events(cutoff: datetime) -> Any:
    """The query of the ids of those events that `delete_events` deletes."""
    return select(events.c.id).where(*_is_old(cutoff))


def event_from_row(row: Row[Any]) -> Event:
    """A row of events; its payload may have been left out."""
    values = row._asdict()
    values["origin"] = Origin(values["origin"])
    return Event(**{"payload": {}} | values)


def _is_old(cutoff: datetime) -> list[Any]:
    # An event's id is of the time at which it was published, and has an index.
    return [
        events.c.id < lowest_id_after(cutoff),
        events.c.published_at < cutoff,
        events.c.dispatched_at.is_not(None),
    ]


def _within(connection: Connection, found: Iterable[Row[Any]], max_bytes: int, *, oldest_first: bool) -> list[Event]:
    ids: list[str] = []
    for event_id, size in found:
        if ids and max_bytes < size:
            break
        ids.append(event_id)
        max_bytes -= size
    if not ids:
        return []
    among = batch.among(events.c.id, batch.is_postgres(connection))
    query = select(*_MODEL).where(among).order_by(events.c.id if oldest_first else events.c.id.desc())
    return [event_from_row(row) for row in connection.execute(query, batch.ids(connection, ids))]


def _delivery_from_row(row: Row[Any]) -> Delivery:
    return Delivery(**row._asdict() | {"outcome": DeliveryOutcome(row.outcome)})


@per_engine
def _add(for_postgres: bool) -> Insert:
    given = batch.given(_EVENT, for_postgres)
    return insert(events).from_select(list(_EVENT), select(*given.c))


@per_engine
def _save(for_postgres: bool) -> Update:
    given = batch.given(_PROGRESS, for_postgres)
    changed = {name: given.c[name] for name in _PROGRESS if name != "id"}
    return update(events).where(events.c.id == given.c.id).values(changed)


@per_engine
def _deliver(for_postgres: bool) -> Insert:
    given = batch.given(_DELIVERY, for_postgres)
    return insert(event_deliveries).from_select(list(_DELIVERY), select(*given.c))
