"""TemplateService."""

from collections.abc import Collection
from typing import Any

from baton.workflows.v1 import template_service_pb2 as pb
from baton.workflows.v1 import template_service_pb2_grpc as rpc
from grpc.aio import ServicerContext
from sqlalchemy import Connection

from services.chassis.call import caller
from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.idempotency import Idempotency
from services.chassis.paging import Cursors, page_limit
from services.workflows.convert import template as convert
from services.workflows.operations import template as operations
from services.workflows.store import template as store

_Context = ServicerContext[Any, Any]


class TemplateServicer(rpc.TemplateServiceServicer):
    """The templates that workflows follow; those that ship with Baton, by their names, nobody changes."""

    def __init__(
        self, database: Database, idempotency: Idempotency, cursors: Cursors, shipped: Collection[str]
    ) -> None:
        self._database = database
        self._idempotency = idempotency
        self._cursors = cursors
        self._shipped = shipped

    async def CreateTemplate(self, request: pb.CreateTemplateRequest, context: _Context) -> pb.CreateTemplateResponse:
        who = caller()

        def create(connection: Connection, clock: Clock) -> pb.CreateTemplateResponse:
            template = operations.create_template(
                connection, request.source, self._shipped, who, clock, request_id=request.request_id
            )
            return pb.CreateTemplateResponse(template=convert.to_template(template))

        return await self._idempotency.once(request, pb.CreateTemplateResponse, create)

    async def ListTemplates(self, request: pb.ListTemplatesRequest, context: _Context) -> pb.ListTemplatesResponse:
        position, limit = self._cursors.decode(request), page_limit(request)
        after = str(position[0]) if position else None
        found = await self._database.read(
            lambda connection, clock: store.list_newest(connection, limit=limit + 1, after=after)
        )
        items, cursor = self._cursors.page(request, found, convert.to_template, lambda one: one.definition.name)
        return pb.ListTemplatesResponse(items=items, next_cursor=cursor, has_more=cursor is not None)

    async def GetTemplate(self, request: pb.GetTemplateRequest, context: _Context) -> pb.GetTemplateResponse:
        template = await self._database.read(
            lambda connection, clock: operations.get_template(
                connection, name=request.name, version=convert.version(request)
            )
        )
        return pb.GetTemplateResponse(template=convert.to_template(template))

    async def DeleteTemplate(self, request: pb.DeleteTemplateRequest, context: _Context) -> pb.DeleteTemplateResponse:
        who = caller()

        def delete(connection: Connection, clock: Clock) -> pb.DeleteTemplateResponse:
            operations.delete_template(
                connection, request.name, self._shipped, who, clock, request_id=request.request_id
            )
            return pb.DeleteTemplateResponse()

        return await self._idempotency.once(request, pb.DeleteTemplateResponse, delete)
