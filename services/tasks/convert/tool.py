"""Tool servers and tools."""

from collections.abc import Sequence

from baton.tasks.v1 import tool_pb2, tool_service_pb2

from services.chassis.structs import from_struct, to_struct
from services.tasks.convert.enums import from_enum, to_enum
from services.tasks.convert.times import to_timestamp
from services.tasks.models.tool import NewToolServer, Tool, ToolServer, ToolTransport

_DEFAULT_TIMEOUT_SECONDS = 30


def new_tool_server(request: tool_service_pb2.CreateToolServerRequest) -> NewToolServer:
    """What the caller wants to register."""
    return NewToolServer(
        name=request.name,
        transport=from_enum(ToolTransport, tool_pb2.ToolTransport, request.transport),
        command=list(request.command),
        env=dict(request.env),
        url=request.url,
        timeout_seconds=request.timeout_seconds if request.HasField("timeout_seconds") else _DEFAULT_TIMEOUT_SECONDS,
    )


def tool_server_message(server: ToolServer) -> tool_pb2.ToolServer:
    """A tool server as it is answered."""
    return tool_pb2.ToolServer(
        name=server.name,
        transport=to_enum(server.transport, tool_pb2.ToolTransport),
        command=server.command,
        env=server.env,
        url=server.url,
        timeout_seconds=server.timeout_seconds,
        created_at=to_timestamp(server.created_at),
    )


def tool_server_page(
    servers: Sequence[ToolServer], next_cursor: str | None
) -> tool_service_pb2.ListToolServersResponse:
    """One page of tool servers."""
    return tool_service_pb2.ListToolServersResponse(
        items=[tool_server_message(server) for server in servers],
        next_cursor=next_cursor,
        has_more=next_cursor is not None,
    )


def tool(message: tool_pb2.Tool) -> Tool:
    return Tool(message.address, message.description, from_struct(message.input_schema))


def tool_page(tools: Sequence[Tool], next_cursor: str | None) -> tool_service_pb2.ListToolsResponse:
    """One page of tools."""
    return tool_service_pb2.ListToolsResponse(
        items=[
            tool_pb2.Tool(address=item.address, description=item.description, input_schema=to_struct(item.input_schema))
            for item in tools
        ],
        next_cursor=next_cursor,
        has_more=next_cursor is not None,
    )
