"""Making, changing and deleting webhooks."""

import base64
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx2
from sqlalchemy import Connection

from services.chassis import outbox
from services.chassis.call import Caller
from services.chassis.clock import Clock
from services.chassis.egress import urls
from services.chassis.egress.guard import Guard
from services.chassis.errors import InvalidArgument, Violation
from services.chassis.ids import new_id
from services.tasks.errors import TooManyWebhooks, WebhookNotFound, WebhookOfAgent
from services.tasks.models.topic import pattern_fault
from services.tasks.models.webhook import NewWebhook, Webhook
from services.tasks.store import tables
from services.tasks.store import webhook as store
from services.tasks.store import webhook_delivery as delivery_store

MAX_WEBHOOKS = 100
"""How many there may be: each is looked at whenever something may be due."""
OVERLAP = timedelta(hours=24)
"""How long a secret signs after it was replaced."""
_SECRET_BYTES = 32
_PREFIX = "whsec_"


def create_webhook(
    connection: Connection, new: NewWebhook, guard: Guard, caller: Caller, clock: Clock, *, request_id: str
) -> tuple[Webhook, str]:
    """Stores a webhook; answers it and its secret. Raises InvalidArgument or TooManyWebhooks."""
    _check(new.url, new.topics, guard)
    if store.count_webhooks(connection) >= MAX_WEBHOOKS:
        raise TooManyWebhooks(MAX_WEBHOOKS)
    now, secret = clock.now(), new_secret()
    webhook = Webhook(
        id=new_id(),
        url=new.url,
        topics=new.topics,
        description=new.description,
        enabled=new.enabled,
        created_by=caller.agent_id,
        created_at=now,
        updated_at=now,
    )
    store.add_webhook(connection, webhook, secret)
    audit(connection, "create", webhook.id, caller.agent_id, clock, after=_audited(webhook), request_id=request_id)
    return webhook, secret


def update_webhook(
    connection: Connection,
    webhook_id: str,
    changes: Mapping[str, Any],
    guard: Guard,
    caller: Caller,
    clock: Clock,
    *,
    request_id: str,
) -> Webhook:
    """Changes some fields of a webhook. Raises WebhookNotFound, WebhookOfAgent or InvalidArgument."""
    before = locked(connection, webhook_id)
    if before.agent_id and "url" in changes:
        raise WebhookOfAgent(webhook_id, before.agent_id)
    _check(changes.get("url"), changes.get("topics", ()), guard)
    after = replace(before, **changes)
    if after != before:
        after = replace(after, updated_at=clock.now())
        store.save_webhook(connection, after)
        told = _audited(before), _audited(after)
        audit(connection, "update", webhook_id, caller.agent_id, clock, *told, request_id=request_id)
    return after


def rotate_secret(
    connection: Connection, webhook_id: str, caller: Caller, clock: Clock, *, request_id: str
) -> tuple[Webhook, str]:
    """Gives a webhook a new secret; answers that, too. Raises WebhookNotFound."""
    webhook, secret, until = locked(connection, webhook_id), new_secret(), clock.now() + OVERLAP
    store.rotate_secret(connection, webhook_id, secret, until, clock.now())
    told = {"previous_secret_until": until.isoformat()}
    audit(connection, "rotate_secret", webhook_id, caller.agent_id, clock, after=told, request_id=request_id)
    return replace(webhook, previous_secret_until=until, updated_at=clock.now()), secret


def delete_webhook(connection: Connection, webhook_id: str, caller: Caller, clock: Clock, *, request_id: str) -> int:
    """Deletes a webhook and what is still to be delivered to it; answers how many that were.

    Raises WebhookNotFound or WebhookOfAgent.
    """
    webhook = locked(connection, webhook_id)
    if webhook.agent_id:
        raise WebhookOfAgent(webhook_id, webhook.agent_id)
    pending = delivery_store.delete_pending(connection, webhook_id)
    store.delete_webhook(connection, webhook_id)
    before = _audited(webhook) | {"pending_deliveries": pending}
    audit(connection, "delete", webhook_id, caller.agent_id, clock, before, request_id=request_id)
    return pending


def get_webhook(connection: Connection, webhook_id: str) -> Webhook:
    """One webhook. Raises WebhookNotFound."""
    return _found(store.get_webhook(connection, webhook_id), webhook_id)


def locked(connection: Connection, webhook_id: str) -> Webhook:
    """One webhook that nobody else changes before this transaction ends. Raises WebhookNotFound."""
    return _found(store.lock_webhook(connection, webhook_id), webhook_id)


def audit(
    connection: Connection,
    verb: str,
    webhook_id: str,
    actor: str,
    clock: Clock,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    *,
    note: str = "",
    request_id: str = "",
) -> None:
    """Publishes that somebody did something to a webhook."""
    outbox.audit(
        connection,
        tables.outbox,
        clock,
        action=f"webhook.{verb}",
        actor=actor,
        resource=f"webhook/{webhook_id}",
        before=before,
        after=after,
        note=note,
        request_id=request_id,
    )


def _found(webhook: Webhook | None, webhook_id: str) -> Webhook:
    if webhook is None:
        raise WebhookNotFound(webhook_id)
    return webhook


def _check(url: str | None, topics: Sequence[str], guard: Guard) -> None:
    """Raises InvalidArgument that names every fault."""
    faults = [Violation("url", fault)] if url is not None and (fault := guard.fault(url)) else []
    for index, topic in enumerate(topics):
        if fault := pattern_fault(topic):
            faults.append(Violation(f"topics[{index}]", fault))
        elif topic in topics[:index]:
            faults.append(Violation(f"topics[{index}]", f"{topic!r} is already in the list"))
    if faults:
        raise InvalidArgument.of(faults)


def new_secret() -> str:
    return _PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def _audited(webhook: Webhook) -> dict[str, Any]:
    """What is told of a webhook: of its URL only the origin, for the rest is what some receivers let in by."""
    return {
        "origin": urls.origin(httpx2.URL(webhook.url)),
        "topics": list(webhook.topics),
        "description": webhook.description,
        "enabled": webhook.enabled,
    }
