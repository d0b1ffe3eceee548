"""HandoffService."""

from typing import Any

from baton.workflows.v1 import handoff_service_pb2 as pb
from baton.workflows.v1 import handoff_service_pb2_grpc as rpc
from grpc.aio import ServicerContext

from services.chassis.call import caller
from services.chassis.database import Database
from services.chassis.idempotency import Idempotency
from services.chassis.ids import stored_id
from services.chassis.paging import Cursors, page_limit
from services.workflows.convert.handoff import handoff_filter, handoff_message
from services.workflows.operations import handoffs as operations

_Context = ServicerContext[Any, Any]


class HandoffServicer(rpc.HandoffServiceServicer):
    """What one role hands to the next."""

    def __init__(self, database: Database, idempotency: Idempotency, cursors: Cursors) -> None:
        self._database = database
        self._idempotency = idempotency
        self._cursors = cursors

    async def ListHandoffs(self, request: pb.ListHandoffsRequest, context: _Context) -> pb.ListHandoffsResponse:
        position, limit, wanted = self._cursors.decode(request), page_limit(request), handoff_filter(request)
        before_id = str(position[0]) if position else None
        found = await self._database.read(
            lambda connection, clock: operations.list_handoffs(connection, wanted, limit=limit + 1, before_id=before_id)
        )
        items, cursor = self._cursors.page(request, found, handoff_message, lambda one: one.id)
        return pb.ListHandoffsResponse(items=items, next_cursor=cursor, has_more=cursor is not None)

    async def GetHandoff(self, request: pb.GetHandoffRequest, context: _Context) -> pb.GetHandoffResponse:
        handoff_id = stored_id(request.handoff_id)
        found = await self._database.read(lambda connection, clock: operations.get_handoff(connection, handoff_id))
        return pb.GetHandoffResponse(handoff=handoff_message(found))

    async def AcceptHandoff(self, request: pb.AcceptHandoffRequest, context: _Context) -> pb.AcceptHandoffResponse:
        handoff_id, who, key = stored_id(request.handoff_id), caller(), request.request_id
        return await self._idempotency.once(
            request,
            pb.AcceptHandoffResponse,
            lambda connection, clock: pb.AcceptHandoffResponse(
                handoff=handoff_message(operations.accept_handoff(connection, handoff_id, who, clock, request_id=key))
            ),
        )

    async def RejectHandoff(self, request: pb.RejectHandoffRequest, context: _Context) -> pb.RejectHandoffResponse:
        handoff_id, reason, who, key = stored_id(request.handoff_id), request.reason, caller(), request.request_id
        return await self._idempotency.once(
            request,
            pb.RejectHandoffResponse,
            lambda connection, clock: pb.RejectHandoffResponse(
                handoff=handoff_message(
                    operations.reject_handoff(connection, handoff_id, reason, who, clock, request_id=key)
                )
            ),
        )
