"""Tool servers and tools."""

from baton.tasks.v1 import tool_pb2, tool_service_pb2

from services.chassis.structs import from_struct, to_struct
from services.chassis.timestamps import to_timestamp
from services.tasks.convert.enums import from_enum, to_enum
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


def tool(message: tool_pb2.Tool) -> Tool:
    return Tool(message.address, message.description, from_struct(message.input_schema))


def tool_message(tool: Tool) -> tool_pb2.Tool:
    """A tool as it is answered."""
    return tool_pb2.Tool(address=tool.address, description=tool.description, input_schema=to_struct(tool.input_schema))
