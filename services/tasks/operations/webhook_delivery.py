"""Delivering events to webhooks: what is next, what came of it, and once more."""

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum

from sqlalchemy import Connection

from services.chassis.call import Caller
from services.chassis.clock import Clock
from services.tasks.errors import WebhookDeliveryNotFound, WebhookDisabled
from services.tasks.models.webhook import Answered, Attempt, DeliveryStatus, Webhook, WebhookDelivery, wait_after
from services.tasks.operations.webhook import audit, locked
from services.tasks.store import webhook as webhook_store
from services.tasks.store import webhook_delivery as store

LEASE = timedelta(seconds=30)
"""How long an attempt belongs to whoever makes it: much longer than it may take."""
REDELIVERED_AT_ONCE = 1000
_ACTOR = "webhooks"


class Outcome(StrEnum):
    """What an attempt means for its delivery."""

    DELIVERED = "delivered"
    FAILED = "failed"
    DEAD = "dead"
    LOST = "lost"
    """Its lease had ended: somebody else tries, or was told to try anew."""


def due_webhooks(connection: Connection, clock: Clock) -> list[str]:
    """The webhooks for which something is due."""
    return store.due_webhooks(connection, clock.now())


def claim(connection: Connection, shares: Mapping[str, int], clock: Clock) -> list[Attempt]:
    """Leases what is due of webhooks: of each as much as its share."""
    now = clock.now()
    # In one order, whoever claims.
    return [
        attempt
        for webhook_id, limit in sorted(shares.items())
        for attempt in store.claim(connection, webhook_id, limit, now + LEASE, now)
    ]


def record(connection: Connection, attempt: Attempt, answered: Answered, clock: Clock) -> Outcome:
    """Stores what came of an attempt, and on the event's run that somebody was told of it."""
    now = clock.now()
    if answered.is_gone:
        # First, as everybody does who locks a webhook and deliveries of it.
        webhook_store.lock_webhook(connection, attempt.webhook_id)
    wait = None if answered.is_gone else wait_after(attempt.number, answered.retry_after)
    if not answered.error:
        outcome, status, next_at = Outcome.DELIVERED, DeliveryStatus.DELIVERED, None
    elif wait is None:
        outcome, status, next_at = Outcome.DEAD, DeliveryStatus.DEAD, None
    else:
        outcome, status, next_at = Outcome.FAILED, DeliveryStatus.PENDING, now + wait
    if not store.settle(connection, attempt, status, answered, next_at, now):
        return Outcome.LOST
    if outcome is Outcome.DELIVERED:
        store.note_notified(connection, attempt, now)
    elif answered.is_gone and webhook_store.disable_webhook(connection, attempt.webhook_id, now):
        note = "its receiver answered 410 (Gone)"
        was, now_is = {"enabled": True}, {"enabled": False}
        audit(connection, "disable", attempt.webhook_id, _ACTOR, clock, was, now_is, note=note)
    return outcome


def redeliver(
    connection: Connection, webhook_id: str, delivery_id: str, caller: Caller, clock: Clock, *, request_id: str
) -> WebhookDelivery:
    """Has a delivery made again. Raises WebhookNotFound, WebhookDeliveryNotFound or WebhookDisabled."""
    _enabled(connection, webhook_id)
    before = _get(connection, webhook_id, delivery_id)
    store.renew(connection, [delivery_id], clock.now())
    was = {"delivery_id": delivery_id, "status": before.status.value, "attempts": before.attempts}
    audit(connection, "redeliver", webhook_id, caller.agent_id, clock, was, request_id=request_id)
    return _get(connection, webhook_id, delivery_id)


def redeliver_dead(
    connection: Connection, webhook_id: str, caller: Caller, clock: Clock, *, request_id: str
) -> tuple[int, bool]:
    """Has dead deliveries made again, the oldest first; answers how many, and whether there are no more.

    Raises WebhookNotFound or WebhookDisabled.
    """
    _enabled(connection, webhook_id)
    found = store.oldest_dead(connection, webhook_id, REDELIVERED_AT_ONCE + 1)
    ids = found[:REDELIVERED_AT_ONCE]
    store.renew(connection, ids, clock.now())
    told = {"redelivered": len(ids)}
    audit(connection, "redeliver", webhook_id, caller.agent_id, clock, after=told, request_id=request_id)
    return len(ids), len(found) == len(ids)


def _enabled(connection: Connection, webhook_id: str) -> Webhook:
    webhook = locked(connection, webhook_id)
    if not webhook.enabled:
        raise WebhookDisabled(webhook_id)
    return webhook


def _get(connection: Connection, webhook_id: str, delivery_id: str) -> WebhookDelivery:
    delivery = store.get_delivery(connection, webhook_id, delivery_id)
    if delivery is None:
        raise WebhookDeliveryNotFound(webhook_id, delivery_id)
    return delivery
