"""ToolService."""

from typing import Any

from baton.tasks.v1 import tool_service_pb2 as pb
from baton.tasks.v1 import tool_service_pb2_grpc as rpc
from grpc.aio import ServicerContext

from services.chassis.call import caller
from services.chassis.database import Database
from services.chassis.idempotency import Idempotency
from services.chassis.paging import Cursors, page_limit
from services.tasks.convert import tool as convert
from services.tasks.operations import tool as operations

_Context = ServicerContext[Any, Any]


class ToolServicer(rpc.ToolServiceServicer):
    """Tool servers and the tools they offer."""

    def __init__(self, database: Database, idempotency: Idempotency, cursors: Cursors) -> None:
        self._database = database
        self._idempotency = idempotency
        self._cursors = cursors

    async def CreateToolServer(
        self, request: pb.CreateToolServerRequest, context: _Context
    ) -> pb.CreateToolServerResponse:
        new = convert.new_tool_server(request)
        return await self._idempotency.once(
            request,
            pb.CreateToolServerResponse,
            lambda connection, clock: pb.CreateToolServerResponse(
                tool_server=convert.tool_server_message(operations.create_tool_server(connection, new, clock))
            ),
        )

    async def ListToolServers(
        self, request: pb.ListToolServersRequest, context: _Context
    ) -> pb.ListToolServersResponse:
        position, limit, reader = self._cursors.decode(request), page_limit(request), caller()
        rows = await self._database.read(
            lambda connection, clock: operations.list_tool_servers(
                connection, reader, limit=limit + 1, after_name=str(position[0]) if position else None
            )
        )
        items, cursor = self._cursors.page(request, rows, convert.tool_server_message, lambda row: row.name)
        return pb.ListToolServersResponse(items=items, next_cursor=cursor, has_more=cursor is not None)

    async def ListTools(self, request: pb.ListToolsRequest, context: _Context) -> pb.ListToolsResponse:
        position, limit = self._cursors.decode(request), page_limit(request)
        rows = await self._database.read(
            lambda connection, clock: operations.list_tools(
                connection, limit=limit + 1, after_address=str(position[0]) if position else None
            )
        )
        items, cursor = self._cursors.page(request, rows, convert.tool_message, lambda row: row.address)
        return pb.ListToolsResponse(items=items, next_cursor=cursor, has_more=cursor is not None)

    async def ReportTools(self, request: pb.ReportToolsRequest, context: _Context) -> pb.ReportToolsResponse:
        offered = [convert.tool(message) for message in request.tools]
        await self._database.transact(
            lambda connection, clock: operations.report_tools(connection, request.server, offered, clock)
        )
        return pb.ReportToolsResponse()
