"""Webhooks as tests make them, and what they receive."""

from collections.abc import Sequence
from typing import Any

from baton.tasks.v1 import webhook_pb2
from baton.tasks.v1 import webhook_service_pb2 as pb
from baton.tasks.v1.webhook_service_pb2_grpc import WebhookServiceStub

from services.tasks.deliverer import Deliverer
from services.tasks.operations.webhook_delivery import due_webhooks
from tests.integration.tasks.running import Tasks
from tests.support.http_server import Asked, HttpServer
from tests.support.waiting import await_until

PENDING, DELIVERED, DEAD = (
    webhook_pb2.WEBHOOK_DELIVERY_STATUS_PENDING,
    webhook_pb2.WEBHOOK_DELIVERY_STATUS_DELIVERED,
    webhook_pb2.WEBHOOK_DELIVERY_STATUS_DEAD,
)


def webhook_admin(tasks: Tasks, agent_id: str | None = None) -> WebhookServiceStub:
    return WebhookServiceStub(tasks.channel(["webhooks:admin"], agent_id=agent_id))


async def webhook_for(tasks: Tasks, url: str, *topics: str, **fields: Any) -> pb.CreateWebhookResponse:
    """Makes a webhook, for `order.*` unless topics are given."""
    request = pb.CreateWebhookRequest(url=url, topics=topics or ["order.*"], **fields)
    return await webhook_admin(tasks).CreateWebhook(request)


async def change(tasks: Tasks, webhook_id: str, **fields: Any) -> webhook_pb2.Webhook:
    return (await webhook_admin(tasks).UpdateWebhook(pb.UpdateWebhookRequest(webhook_id=webhook_id, **fields))).webhook


async def read(tasks: Tasks, webhook_id: str) -> webhook_pb2.Webhook:
    return (await webhook_admin(tasks).GetWebhook(pb.GetWebhookRequest(webhook_id=webhook_id))).webhook


async def deliveries_of(tasks: Tasks, webhook_id: str, **filters: Any) -> list[webhook_pb2.WebhookDelivery]:
    """The deliveries that pass a filter, oldest first."""
    request = pb.ListWebhookDeliveriesRequest(webhook_id=webhook_id, limit=200, **filters)
    return list((await webhook_admin(tasks).ListWebhookDeliveries(request)).items)[::-1]


async def deliver_all(tasks: Tasks, deliverer: Deliverer | None = None) -> None:
    """Has everything sent that is due, and waits until what came of it is stored."""
    deliverer = deliverer or tasks.service.deliverer
    while deliverer.under_way or await tasks.database.read(due_webhooks):
        await deliverer.step()
        await await_until(lambda: not deliverer.under_way)


def received(server: HttpServer, path: str = "/hook") -> Sequence[Asked]:
    return [asked for asked in server.asked if asked.target == path]
