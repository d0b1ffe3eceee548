"""UsageService."""

from typing import Any

from baton.sessions.v1 import usage_service_pb2 as pb
from baton.sessions.v1 import usage_service_pb2_grpc as rpc
from grpc.aio import ServicerContext

from services.chassis.call import caller
from services.chassis.database import Database
from services.chassis.idempotency import Idempotency
from services.chassis.paging import Cursors, page_limit
from services.sessions.convert import usage as convert
from services.sessions.operations import usage as operations
from services.sessions.store import usage as store

_Context = ServicerContext[Any, Any]


class UsageServicer(rpc.UsageServiceServicer):
    """What agents have used."""

    def __init__(self, database: Database, idempotency: Idempotency, cursors: Cursors) -> None:
        self._database = database
        self._idempotency = idempotency
        self._cursors = cursors

    async def RecordUsage(self, request: pb.RecordUsageRequest, context: _Context) -> pb.RecordUsageResponse:
        who = caller()
        new = convert.new_calls(request, who)
        return await self._idempotency.once(
            request,
            pb.RecordUsageResponse,
            lambda connection, clock: convert.recorded(operations.record_usage(connection, new, who, clock)),
        )

    async def ListUsage(self, request: pb.ListUsageRequest, context: _Context) -> pb.ListUsageResponse:
        position, limit, wanted = self._cursors.decode(request), page_limit(request), convert.call_filter(request)
        before_id = str(position[0]) if position else None
        calls = await self._database.read(
            lambda connection, clock: store.list_calls(connection, wanted, limit=limit + 1, before_id=before_id)
        )
        items, cursor = self._cursors.page(request, calls, convert.usage_message, lambda call: call.id)
        return pb.ListUsageResponse(items=items, next_cursor=cursor, has_more=cursor is not None)

    async def SummarizeUsage(self, request: pb.SummarizeUsageRequest, context: _Context) -> pb.SummarizeUsageResponse:
        position, limit, wanted = self._cursors.decode(request), page_limit(request), convert.sum_filter(request)
        after = str(position[0]) if position else None
        sums = await self._database.read(
            lambda connection, clock: store.add_up(connection, wanted, limit=limit + 1, after=after)
        )
        items, cursor = self._cursors.page(request, sums, convert.sum_message, lambda added: added.key)
        return pb.SummarizeUsageResponse(items=items, next_cursor=cursor, has_more=cursor is not None)
