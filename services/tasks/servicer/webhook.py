"""WebhookService."""

from typing import Any

from baton.tasks.v1 import webhook_service_pb2 as pb
from baton.tasks.v1 import webhook_service_pb2_grpc as rpc
from grpc.aio import ServicerContext
from sqlalchemy import Connection

from services.chassis.call import caller
from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.egress.guard import Guard
from services.chassis.idempotency import Idempotency
from services.chassis.ids import stored_id
from services.chassis.paging import Cursors, page_limit
from services.tasks.convert import webhook as convert
from services.tasks.models.webhook import WebhookDelivery
from services.tasks.operations import webhook as operations
from services.tasks.operations import webhook_delivery as deliveries
from services.tasks.store import webhook as store
from services.tasks.store import webhook_delivery as delivery_store

_Context = ServicerContext[Any, Any]


class WebhookServicer(rpc.WebhookServiceServicer):
    """Webhooks, and what is delivered to them."""

    def __init__(self, database: Database, idempotency: Idempotency, cursors: Cursors, guard: Guard) -> None:
        self._database = database
        self._idempotency = idempotency
        self._cursors = cursors
        self._guard = guard

    async def CreateWebhook(self, request: pb.CreateWebhookRequest, context: _Context) -> pb.CreateWebhookResponse:
        new, maker = convert.new_webhook(request), caller()

        def create(connection: Connection, clock: Clock) -> pb.CreateWebhookResponse:
            webhook, secret = operations.create_webhook(
                connection, new, self._guard, maker, clock, request_id=request.request_id
            )
            return pb.CreateWebhookResponse(webhook=convert.webhook_message(webhook), secret=secret)

        return await self._idempotency.once(request, pb.CreateWebhookResponse, create, answer_is_secret=True)

    async def ListWebhooks(self, request: pb.ListWebhooksRequest, context: _Context) -> pb.ListWebhooksResponse:
        position, limit = self._cursors.decode(request), page_limit(request)
        before_id = str(position[0]) if position else None
        found = await self._database.read(
            lambda connection, clock: store.list_webhooks(connection, limit=limit + 1, before_id=before_id)
        )
        items, cursor = self._cursors.page(request, found, convert.webhook_message, lambda webhook: webhook.id)
        return pb.ListWebhooksResponse(items=items, next_cursor=cursor, has_more=cursor is not None)

    async def GetWebhook(self, request: pb.GetWebhookRequest, context: _Context) -> pb.GetWebhookResponse:
        webhook = await self._database.read(
            lambda connection, clock: operations.get_webhook(connection, request.webhook_id)
        )
        return pb.GetWebhookResponse(webhook=convert.webhook_message(webhook))

    async def UpdateWebhook(self, request: pb.UpdateWebhookRequest, context: _Context) -> pb.UpdateWebhookResponse:
        changes, changer = convert.webhook_changes(request), caller()

        def change(connection: Connection, clock: Clock) -> pb.UpdateWebhookResponse:
            webhook = operations.update_webhook(
                connection, request.webhook_id, changes, self._guard, changer, clock, request_id=request.request_id
            )
            return pb.UpdateWebhookResponse(webhook=convert.webhook_message(webhook))

        return await self._idempotency.once(request, pb.UpdateWebhookResponse, change)

    async def DeleteWebhook(self, request: pb.DeleteWebhookRequest, context: _Context) -> pb.DeleteWebhookResponse:
        deleter = caller()
        return await self._idempotency.once(
            request,
            pb.DeleteWebhookResponse,
            lambda connection, clock: pb.DeleteWebhookResponse(
                pending_deliveries=operations.delete_webhook(
                    connection, request.webhook_id, deleter, clock, request_id=request.request_id
                )
            ),
        )

    async def RotateWebhookSecret(
        self, request: pb.RotateWebhookSecretRequest, context: _Context
    ) -> pb.RotateWebhookSecretResponse:
        rotator = caller()

        def rotate(connection: Connection, clock: Clock) -> pb.RotateWebhookSecretResponse:
            webhook, secret = operations.rotate_secret(
                connection, request.webhook_id, rotator, clock, request_id=request.request_id
            )
            return pb.RotateWebhookSecretResponse(webhook=convert.webhook_message(webhook), secret=secret)

        return await self._idempotency.once(request, pb.RotateWebhookSecretResponse, rotate, answer_is_secret=True)

    async def ListWebhookDeliveries(
        self, request: pb.ListWebhookDeliveriesRequest, context: _Context
    ) -> pb.ListWebhookDeliveriesResponse:
        position, limit, webhook_id = self._cursors.decode(request), page_limit(request), request.webhook_id
        before_id, status = str(position[0]) if position else None, convert.delivery_status(request)
        event_id = stored_id(request.event_id)

        def read(connection: Connection, clock: Clock) -> list[WebhookDelivery]:
            operations.get_webhook(connection, webhook_id)
            return delivery_store.list_deliveries(
                connection, webhook_id, status, event_id, limit=limit + 1, before_id=before_id
            )

        items, cursor = self._cursors.page(
            request, await self._database.read(read), convert.delivery_message, lambda delivery: delivery.id
        )
        return pb.ListWebhookDeliveriesResponse(items=items, next_cursor=cursor, has_more=cursor is not None)

    async def RedeliverWebhookDelivery(
        self, request: pb.RedeliverWebhookDeliveryRequest, context: _Context
    ) -> pb.RedeliverWebhookDeliveryResponse:
        asker = caller()

        def redeliver(connection: Connection, clock: Clock) -> pb.RedeliverWebhookDeliveryResponse:
            delivery = deliveries.redeliver(
                connection, request.webhook_id, request.delivery_id, asker, clock, request_id=request.request_id
            )
            return pb.RedeliverWebhookDeliveryResponse(delivery=convert.delivery_message(delivery))

        return await self._idempotency.once(request, pb.RedeliverWebhookDeliveryResponse, redeliver)

    async def RedeliverWebhook(
        self, request: pb.RedeliverWebhookRequest, context: _Context
    ) -> pb.RedeliverWebhookResponse:
        asker = caller()

        def redeliver(connection: Connection, clock: Clock) -> pb.RedeliverWebhookResponse:
            count, complete = deliveries.redeliver_dead(
                connection, request.webhook_id, asker, clock, request_id=request.request_id
            )
            return pb.RedeliverWebhookResponse(redelivered=count, complete=complete)

        return await self._idempotency.once(request, pb.RedeliverWebhookResponse, redeliver)
