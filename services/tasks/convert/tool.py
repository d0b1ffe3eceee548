"""Tools."""

from baton.tasks.v1 import tool_pb2, tool_service_pb2

from services.chassis.structs import from_struct, to_struct
from services.tasks.models.tool import Tool, ToolFilters


def tool(message: tool_pb2.Tool) -> Tool:
    """A tool as a worker tells of it."""
    return Tool(
        address=message.address,
        description=message.description,
        input_schema=from_struct(message.input_schema),
        output_schema=from_struct(message.output_schema) if message.HasField("output_schema") else None,
    )


def tool_filters(request: tool_service_pb2.ListToolsRequest) -> ToolFilters:
    """Which tools the caller wants to see."""
    return ToolFilters(server=request.server, text=request.q)


def tool_message(tool: Tool) -> tool_pb2.Tool:
    """A tool as it is answered."""
    return tool_pb2.Tool(
        address=tool.address,
        description=tool.description,
        input_schema=to_struct(tool.input_schema),
        output_schema=None if tool.output_schema is None else to_struct(tool.output_schema),
        server=tool.server,
        scopes=tool.scopes,
        timeout_seconds=tool.timeout_seconds,
        enabled=tool.enabled,
    )
