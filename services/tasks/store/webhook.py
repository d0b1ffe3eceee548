"""Webhooks, as rows."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, func, insert, select, update

from services.tasks.models.topic import key_of, keys_of, matches
from services.tasks.models.webhook import Subscriber, Webhook
from services.tasks.store.tables import webhook_topics, webhooks

_UNREAD = ("secret", "previous_secret", "told_by")
_READ = [column for column in webhooks.c if column.name not in _UNREAD]
_t = webhook_topics.c


def add_webhook(connection: Connection, webhook: Webhook, secret: str) -> None:
    """Stores a new webhook."""
    connection.execute(
        insert(webhooks).values(
            id=webhook.id,
            url=webhook.url,
            description=webhook.description,
            enabled=webhook.enabled,
            secret=secret,
            created_by=webhook.created_by,
            created_at=webhook.created_at,
            updated_at=webhook.updated_at,
            agent_id=webhook.agent_id,
        )
    )
    _add_topics(connection, webhook)


def save_webhook(connection: Connection, webhook: Webhook) -> None:
    """Stores what has been changed of a webhook that is locked; its secrets stay."""
    values = {name: getattr(webhook, name) for name in ("url", "description", "enabled", "updated_at")}
    connection.execute(update(webhooks).where(webhooks.c.id == webhook.id).values(values))
    connection.execute(delete(webhook_topics).where(_t.webhook_id == webhook.id))
    _add_topics(connection, webhook)


def rotate_secret(connection: Connection, webhook_id: str, secret: str, until: datetime, now: datetime) -> None:
    """Replaces a webhook's secret; until then the one before it signs, too."""
    connection.execute(
        update(webhooks)
        .where(webhooks.c.id == webhook_id)
        .values(previous_secret=webhooks.c.secret, previous_secret_until=until, secret=secret, updated_at=now)
    )


def disable_webhook(connection: Connection, webhook_id: str, now: datetime) -> bool:
    """Has nothing sent to a webhook any more; answers whether that was different before."""
    enabled = update(webhooks).where(webhooks.c.id == webhook_id, webhooks.c.enabled)
    return connection.execute(enabled.values(enabled=False, updated_at=now)).rowcount > 0


def delete_webhook(connection: Connection, webhook_id: str) -> None:
    """Deletes a webhook and its topics."""
    connection.execute(delete(webhooks).where(webhooks.c.id == webhook_id))


def count_webhooks(connection: Connection) -> int:
    """How many webhooks there are beside those of agents."""
    query = select(func.count()).select_from(webhooks).where(webhooks.c.agent_id.is_(None))
    return connection.execute(query).scalar_one()


def get_webhook(connection: Connection, webhook_id: str) -> Webhook | None:
    """One webhook by its id."""
    return _one(connection, select(*_READ).where(webhooks.c.id == webhook_id))


def lock_webhook(connection: Connection, webhook_id: str) -> Webhook | None:
    """A webhook that nobody else changes before this transaction ends."""
    return _one(connection, select(*_READ).where(webhooks.c.id == webhook_id).with_for_update())


def list_webhooks(connection: Connection, *, limit: int, before_id: str | None = None) -> list[Webhook]:
    """Up to `limit` webhooks, newest first, with smaller ids than `before_id`."""
    query = select(*_READ)
    if before_id is not None:
        query = query.where(webhooks.c.id < before_id)
    return _webhooks(connection, connection.execute(query.order_by(webhooks.c.id.desc()).limit(limit)).all())


def webhook_of_agent(connection: Connection, agent_id: str) -> tuple[str, str] | None:
    """The id of an agent's webhook, and the message that told of it last; nobody else changes it meanwhile."""
    query = select(webhooks.c.id, webhooks.c.told_by).where(webhooks.c.agent_id == agent_id).with_for_update()
    row = connection.execute(query).one_or_none()
    return None if row is None else (row.id, row.told_by)


def note_told(connection: Connection, webhook_id: str, message_id: str) -> None:
    """Records which message told of an agent's webhook last."""
    connection.execute(update(webhooks).where(webhooks.c.id == webhook_id).values(told_by=message_id))


def subscribers(connection: Connection, topic: str) -> list[Subscriber]:
    """The enabled webhooks that are for a topic, each once."""
    query = (
        select(_t.webhook_id, _t.pattern, webhooks.c.agent_id)
        .join_from(webhook_topics, webhooks, _t.webhook_id == webhooks.c.id)
        .where(_t.topic_key.in_(keys_of(topic)), webhooks.c.enabled)
        .order_by(_t.webhook_id)
    )
    found = connection.execute(query)
    matching = (Subscriber(row.webhook_id, row.agent_id) for row in found if matches(row.pattern, topic))
    return list(dict.fromkeys(matching))


def _add_topics(connection: Connection, webhook: Webhook) -> None:
    rows = [
        {"webhook_id": webhook.id, "position": position, "pattern": pattern, "topic_key": key_of(pattern)}
        for position, pattern in enumerate(webhook.topics)
    ]
    connection.execute(insert(webhook_topics), rows)


def _one(connection: Connection, query: Select[Any]) -> Webhook | None:
    return next(iter(_webhooks(connection, connection.execute(query).all())), None)


def _webhooks(connection: Connection, rows: Sequence[Row[Any]]) -> list[Webhook]:
    topics: dict[str, list[str]] = {row.id: [] for row in rows}
    query = select(_t.webhook_id, _t.pattern).where(_t.webhook_id.in_(list(topics)))
    for webhook_id, pattern in connection.execute(query.order_by(_t.webhook_id, _t.position)):
        topics[webhook_id].append(pattern)
    return [Webhook(**row._asdict(), topics=tuple(topics[row.id])) for row in rows]
