"""What is, was or could not be delivered to webhooks, as rows."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row, delete, insert, select, tuple_, update

from services.chassis.ids import new_id
from services.tasks.models.event import Event
from services.tasks.models.webhook import Answered, Attempt, DeliveryStatus, WebhookDelivery
from services.tasks.store import batch
from services.tasks.store.tables import events, run_history, runs, webhook_deliveries, webhooks
from services.tasks.store.webhook import subscribers

_d = webhook_deliveries.c
_READ = [column for column in _d if column.name != "lease_token"]
_AT_ONCE = 1000
_FIRST_ID, _LAST_ID = str(UUID(int=0)), str(UUID(int=(1 << 128) - 1))
_ABOUT_RUNS = "run."


def add_deliveries(connection: Connection, matched: Sequence[Event], now: datetime) -> None:
    """Makes a delivery of each of the events, which are stored, for each enabled webhook that has its topic."""
    topics = {topic: subscribers(connection, topic) for topic in {event.topic for event in matched}}
    rows = [
        {
            "id": new_id(),
            "webhook_id": subscriber.webhook_id,
            "event_id": event.id,
            "topic": event.topic,
            "status": DeliveryStatus.PENDING.value,
            "attempts": 0,
            "next_attempt_at": now,
            "last_error": "",
            "created_at": now,
        }
        for event in matched
        for subscriber in topics[event.topic]
        if subscriber.hears(event)
    ]
    for start in range(0, len(rows), _AT_ONCE):
        connection.execute(insert(webhook_deliveries), rows[start : start + _AT_ONCE])


def due_webhooks(connection: Connection, now: datetime) -> list[str]:
    """The ids of the enabled webhooks for which something is due: a look into an index for each."""
    batch.use_indexes(connection)
    due = select(_d.id).where(_d.webhook_id == webhooks.c.id, *_is_due(now)).limit(1).scalar_subquery()
    return list(connection.execute(select(webhooks.c.id).where(webhooks.c.enabled, due.is_not(None))).scalars())


def claim(connection: Connection, webhook_id: str, limit: int, until: datetime, now: datetime) -> list[Attempt]:
    """Leases up to `limit` deliveries of an enabled webhook that are due, those that waited longest first.

    Those that somebody else is about to lease are passed over. A lease that has ended is one that was lost: whoever
    comes next tries again.
    """
    batch.use_indexes(connection)
    due = select(_d.id).where(_d.webhook_id == webhook_id, *_is_due(now)).order_by(_d.next_attempt_at, _d.id)
    ids = list(connection.execute(due.limit(limit).with_for_update(skip_locked=True)).scalars())
    if not ids:
        return []
    token = new_id()
    leased = {"lease_token": token, "next_attempt_at": until, "attempts": _d.attempts + 1}
    connection.execute(update(webhook_deliveries).where(_d.id.in_(ids)).values(leased))
    query = (
        select(_d.id, _d.attempts, _d.topic, webhooks.c.id.label("webhook_id"), webhooks.c.url, webhooks.c.secret)
        .add_columns(webhooks.c.previous_secret, webhooks.c.previous_secret_until)
        .add_columns(events.c.payload, events.c.published_at)
        .select_from(webhook_deliveries)
        .join(webhooks, (webhooks.c.id == _d.webhook_id) & webhooks.c.enabled)
        .join(events, events.c.id == _d.event_id)
        .where(_d.id.in_(ids))
    )
    return [_attempt(row, token, now) for row in connection.execute(query)]


def settle(
    connection: Connection,
    attempt: Attempt,
    status: DeliveryStatus,
    answered: Answered,
    next_at: datetime | None,
    now: datetime,
) -> bool:
    """Records what came of an attempt, and ends its lease; answers whether the lease was still held."""
    held = update(webhook_deliveries).where(_d.id == attempt.delivery_id, _d.lease_token == attempt.lease_token)
    values = {
        "status": status.value,
        "next_attempt_at": next_at,
        "lease_token": None,
        "last_status": answered.status,
        "last_error": answered.error,
        "delivered_at": now if status is DeliveryStatus.DELIVERED else None,
    }
    return connection.execute(held.values(values)).rowcount > 0


def note_notified(connection: Connection, attempt: Attempt, now: datetime) -> None:
    """Records on the run that a delivered event is about, if it is about one, that somebody was told: once."""
    run_id = attempt.payload.get("run_id") if attempt.topic.startswith(_ABOUT_RUNS) else None
    if not isinstance(run_id, str):
        return
    # In this order, so that a run that ends meanwhile is found in one of them.
    for table in (runs, run_history):
        untold = update(table).where(table.c.id == run_id, table.c.webhook_notified_at.is_(None))
        if connection.execute(untold.values(webhook_notified_at=now, updated_at=now)).rowcount:
            return


def get_delivery(connection: Connection, webhook_id: str, delivery_id: str) -> WebhookDelivery | None:
    """One delivery of a webhook."""
    query = select(*_READ).where(_d.id == delivery_id, _d.webhook_id == webhook_id)
    row = connection.execute(query).one_or_none()
    return None if row is None else _delivery(row)


def list_deliveries(
    connection: Connection,
    webhook_id: str,
    status: DeliveryStatus | None,
    event_id: str = "",
    *,
    limit: int,
    before_id: str | None = None,
) -> list[WebhookDelivery]:
    """Up to `limit` deliveries of a webhook, all or those of one event, newest first, with ids below `before_id`."""
    if event_id:
        return _of_event(connection, webhook_id, event_id, status, before_id or _LAST_ID)
    key, within = _span(webhook_id, status, before_id or _LAST_ID)
    query = select(*_READ).where(*within).order_by(*(column.desc() for column in key)).limit(limit)
    return [_delivery(row) for row in connection.execute(query)]


def renew(connection: Connection, delivery_ids: Sequence[str], now: datetime) -> None:
    """Has deliveries made again, at once and with all attempts; what is under way for them counts no more."""
    anew = {
        "status": DeliveryStatus.PENDING.value,
        "attempts": 0,
        "next_attempt_at": now,
        "lease_token": None,
        "delivered_at": None,
    }
    query = update(webhook_deliveries).where(batch.among(_d.id, batch.is_postgres(connection))).values(anew)
    connection.execute(query, batch.ids(connection, delivery_ids))


def oldest_dead(connection: Connection, webhook_id: str, limit: int) -> list[str]:
    """The ids of up to `limit` dead deliveries of a webhook, the oldest first."""
    key, within = _span(webhook_id, DeliveryStatus.DEAD)
    return list(connection.execute(select(_d.id).where(*within).order_by(*key).limit(limit)).scalars())


def delete_pending(connection: Connection, webhook_id: str) -> int:
    """Deletes what is still to be delivered to a webhook; answers how many that were."""
    pending = delete(webhook_deliveries).where(_d.webhook_id == webhook_id, _d.status == DeliveryStatus.PENDING.value)
    return connection.execute(pending).rowcount


def oldest_pending(connection: Connection) -> datetime | None:
    """Since when the oldest delivery waits of those that enabled webhooks have still to get."""
    pending = select(_d.created_at).where(_d.webhook_id == webhooks.c.id, _d.status == DeliveryStatus.PENDING.value)
    oldest = pending.order_by(_d.id).limit(1).scalar_subquery()
    found = connection.execute(select(oldest).select_from(webhooks).where(webhooks.c.enabled)).scalars()
    return min((since for since in found if since is not None), default=None)


def _of_event(
    connection: Connection, webhook_id: str, event_id: str, status: DeliveryStatus | None, before_id: str
) -> list[WebhookDelivery]:
    """The one delivery of an event to a webhook, if there is one that is wanted."""
    query = select(*_READ).where(_d.event_id == event_id, _d.webhook_id == webhook_id, _d.id < before_id)
    if status is not None:
        query = query.where(_d.status == status.value)
    return [_delivery(row) for row in connection.execute(query)]


def _span(
    webhook_id: str, status: DeliveryStatus | None, before_id: str = _LAST_ID
) -> tuple[Sequence[ColumnElement[Any]], Sequence[ColumnElement[bool]]]:
    """The key of an index, and between which of its values a webhook's deliveries are, of one status or of all.

    Only that index has the order of the whole key. When just their ids are to be in order, PostgreSQL may go through
    those of all webhooks instead: it takes it that every webhook has deliveries of every status among any few of them.
    """
    columns: list[ColumnElement[Any]] = [_d.webhook_id]
    values = [webhook_id]
    if status is not None:
        columns.append(_d.status)
        values.append(status.value)
    key = (*columns, _d.id)
    return key, (tuple_(*key) > (*values, _FIRST_ID), tuple_(*key) < (*values, before_id))


def _is_due(now: datetime) -> list[Any]:
    return [_d.status == DeliveryStatus.PENDING.value, _d.next_attempt_at <= now]


def _attempt(row: Row[Any], token: str, now: datetime) -> Attempt:
    secrets: tuple[str, ...] = (row.secret,)
    if row.previous_secret is not None and row.previous_secret_until > now:
        secrets += (row.previous_secret,)
    payload: Mapping[str, Any] = row.payload
    return Attempt(
        delivery_id=row.id,
        webhook_id=row.webhook_id,
        lease_token=token,
        number=row.attempts,
        url=row.url,
        secrets=secrets,
        topic=row.topic,
        payload=payload,
        published_at=row.published_at,
    )


def _delivery(row: Row[Any]) -> WebhookDelivery:
    return WebhookDelivery(**row._asdict() | {"status": DeliveryStatus(row.status)})
