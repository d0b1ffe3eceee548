"""ToolService."""

from typing import Any

from baton.tasks.v1 import tool_service_pb2 as pb
from baton.tasks.v1 import tool_service_pb2_grpc as rpc
from grpc.aio import ServicerContext
from sqlalchemy import Connection

from services.chassis.call import caller
from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.idempotency import Idempotency
from services.chassis.paging import Cursors, page_limit
from services.tasks.convert import tool as convert
from services.tasks.convert import tool_server as convert_server
from services.tasks.operations import tool as operations
from services.tasks.operations import tool_server as server_operations

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
        new, creator = convert_server.new_tool_server(request), caller()

        def create(connection: Connection, clock: Clock) -> pb.CreateToolServerResponse:
            server = server_operations.create_tool_server(
                connection, new, creator, clock, request_id=request.request_id
            )
            return pb.CreateToolServerResponse(tool_server=convert_server.tool_server_message(server))

        return await self._idempotency.once(request, pb.CreateToolServerResponse, create)

    async def GetToolServer(self, request: pb.GetToolServerRequest, context: _Context) -> pb.GetToolServerResponse:
        server = await self._database.read(
            lambda connection, clock: server_operations.get_tool_server(connection, request.name)
        )
        return pb.GetToolServerResponse(tool_server=convert_server.tool_server_message(server))

    async def ListToolServers(
        self, request: pb.ListToolServersRequest, context: _Context
    ) -> pb.ListToolServersResponse:
        position, limit, reader = self._cursors.decode(request), page_limit(request), caller()
        rows = await self._database.read(
            lambda connection, clock: server_operations.list_tool_servers(
                connection, reader, limit=limit + 1, after_name=str(position[0]) if position else None
            )
        )
        items, cursor = self._cursors.page(request, rows, convert_server.tool_server_message, lambda row: row.name)
        return pb.ListToolServersResponse(items=items, next_cursor=cursor, has_more=cursor is not None)

    async def UpdateToolServer(
        self, request: pb.UpdateToolServerRequest, context: _Context
    ) -> pb.UpdateToolServerResponse:
        given, changer = convert_server.tool_server_changes(request), caller()

        def update(connection: Connection, clock: Clock) -> pb.UpdateToolServerResponse:
            server = server_operations.update_tool_server(
                connection, request.name, given, changer, clock, request_id=request.request_id
            )
            return pb.UpdateToolServerResponse(tool_server=convert_server.tool_server_message(server))

        return await self._idempotency.once(request, pb.UpdateToolServerResponse, update)

    async def DeleteToolServer(
        self, request: pb.DeleteToolServerRequest, context: _Context
    ) -> pb.DeleteToolServerResponse:
        deleter = caller()

        def delete(connection: Connection, clock: Clock) -> pb.DeleteToolServerResponse:
            users = server_operations.delete_tool_server(
                connection, request.name, deleter, clock, force=request.force, request_id=request.request_id
            )
            return pb.DeleteToolServerResponse(task_ids=[user.id for user in users])

        return await self._idempotency.once(request, pb.DeleteToolServerResponse, delete)

    async def ListTools(self, request: pb.ListToolsRequest, context: _Context) -> pb.ListToolsResponse:
        position, limit = self._cursors.decode(request), page_limit(request)
        filters = convert.tool_filters(request)
        rows = await self._database.read(
            lambda connection, clock: operations.list_tools(
                connection, filters, limit=limit + 1, after_address=str(position[0]) if position else None
            )
        )
        items, cursor = self._cursors.page(request, rows, convert.tool_message, lambda row: row.address)
        return pb.ListToolsResponse(items=items, next_cursor=cursor, has_more=cursor is not None)

    async def ReportTools(self, request: pb.ReportToolsRequest, context: _Context) -> pb.ReportToolsResponse:
        offered = [convert.tool(message) for message in request.tools]
        await self._database.transact(
            lambda connection, clock: operations.report_tools(connection, request.server, offered, request.error, clock)
        )
        return pb.ReportToolsResponse()
