"""Tool servers to register."""

from typing import Any

from baton.tasks.v1.tool_pb2 import TOOL_TRANSPORT_HTTP, TOOL_TRANSPORT_STDIO, Tool, ToolServer
from baton.tasks.v1.tool_service_pb2 import CreateToolServerRequest, ReportToolsRequest

from services.chassis.structs import to_struct
from tests.integration.tasks.running import Tasks

STDIO: dict[str, Any] = {"name": "time", "transport": TOOL_TRANSPORT_STDIO, "command": ["/bin/time"]}
HTTP: dict[str, Any] = {"name": "time", "transport": TOOL_TRANSPORT_HTTP, "url": "https://tools.example/mcp"}


async def register(tasks: Tasks, **fields: Any) -> ToolServer:
    return (await tasks.admin_tools.CreateToolServer(CreateToolServerRequest(**fields))).tool_server


async def offer(tasks: Tasks, server: str, **schemas: dict[str, Any]) -> None:
    """Reports tools of a server, with the schemas of their inputs."""
    tools = [Tool(address=f"{server}.{name}", input_schema=to_struct(schema)) for name, schema in schemas.items()]
    await tasks.tools.ReportTools(ReportToolsRequest(server=server, tools=tools))
