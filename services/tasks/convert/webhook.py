"""Webhooks, and what is delivered to them."""

from typing import Any, Literal, get_args

from baton.tasks.v1 import webhook_pb2, webhook_service_pb2

from services.chassis.timestamps import to_timestamp
from services.tasks.convert.enums import from_enum, to_enum
from services.tasks.models.webhook import DeliveryStatus, NewWebhook, Webhook, WebhookDelivery

_Changeable = Literal["url", "description", "enabled"]
_CHANGEABLE: tuple[_Changeable, ...] = get_args(_Changeable)


def new_webhook(request: webhook_service_pb2.CreateWebhookRequest) -> NewWebhook:
    """What the caller wants to make."""
    enabled = request.enabled if request.HasField("enabled") else True
    return NewWebhook(request.url, tuple(request.topics), request.description, enabled)


def webhook_changes(request: webhook_service_pb2.UpdateWebhookRequest) -> dict[str, Any]:
    """What the caller wants to be different."""
    changes: dict[str, Any] = {name: getattr(request, name) for name in _CHANGEABLE if request.HasField(name)}
    if request.topics:
        changes["topics"] = tuple(request.topics)
    return changes


def delivery_status(request: webhook_service_pb2.ListWebhookDeliveriesRequest) -> DeliveryStatus | None:
    """Which deliveries the caller wants to see; None for all."""
    if not request.HasField("status"):
        return None
    return from_enum(DeliveryStatus, webhook_pb2.WebhookDeliveryStatus, request.status)


def webhook_message(webhook: Webhook) -> webhook_pb2.Webhook:
    """A webhook as it is answered."""
    return webhook_pb2.Webhook(
        id=webhook.id,
        url=webhook.url,
        topics=webhook.topics,
        description=webhook.description,
        enabled=webhook.enabled,
        created_by=webhook.created_by,
        created_at=to_timestamp(webhook.created_at),
        updated_at=to_timestamp(webhook.updated_at),
        previous_secret_until=to_timestamp(webhook.previous_secret_until),
        agent_id=webhook.agent_id or "",
    )


def delivery_message(delivery: WebhookDelivery) -> webhook_pb2.WebhookDelivery:
    """A delivery as it is answered."""
    return webhook_pb2.WebhookDelivery(
        id=delivery.id,
        webhook_id=delivery.webhook_id,
        event_id=delivery.event_id,
        topic=delivery.topic,
        status=to_enum(delivery.status, webhook_pb2.WebhookDeliveryStatus),
        attempts=delivery.attempts,
        next_attempt_at=to_timestamp(delivery.next_attempt_at),
        last_status=delivery.last_status,
        last_error=delivery.last_error,
        created_at=to_timestamp(delivery.created_at),
        delivered_at=to_timestamp(delivery.delivered_at),
    )
