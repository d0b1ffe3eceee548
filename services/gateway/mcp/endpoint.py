"""The endpoint of MCP: streamable HTTP that keeps nothing from one request to the next.

Every request bears its caller's token, and is answered with JSON.
"""

import logging
from collections.abc import Mapping
from typing import Any

import anyio
import mcp_types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError
from opentelemetry import trace
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from services.chassis.auth import TokenExchange
from services.gateway.backends import call_metadata
from services.gateway.body import MAX_BODY_BYTES, parse_json, read_bytes
from services.gateway.clients import while_connected
from services.gateway.credentials import checked_access_token
from services.gateway.mcp.calls import Visit, perform
from services.gateway.mcp.catalogue import Tool
from services.gateway.mcp.messages import check_message, name_faulty_params
from services.gateway.routes import Endpoint, Values

PATH = "/mcp"
_VISIT = "mcp_visit"
_Context = ServerRequestContext[Any, Request]
_Page = mcp_types.PaginatedRequestParams
_INSTRUCTIONS = (
    "A call that fails has a result with isError, whose text is a problem document: `reason` says what went wrong for "
    "programs, `detail` for people, and `errors` names each faulty argument. To repeat a call safely, give it an "
    "`idempotency_key`, and the same one when you repeat it."
)


def mcp_endpoint(tools: Mapping[str, Tool], exchange: TokenExchange, version: str) -> Endpoint:
    """What answers a POST to PATH."""
    server = _server(tools, version)
    # It tells of its own comings and goings with every request, of which there is a line already.
    logging.getLogger("mcp.server").setLevel(logging.WARNING)

    async def serve(request: Request, values: Values) -> Response:
        token = await checked_access_token(request, exchange)
        body = await read_bytes(request)
        # What REST would not take, such as a name given twice, the library might read over.
        check_message(parse_json(body, request.headers))
        visit = _visit(request, token)
        with while_connected(request):
            response = await _respond(server, request, body, visit)
        if visit.refusal is not None:
            raise visit.refusal
        return response

    return serve


def _server(tools: Mapping[str, Tool], version: str) -> Server:
    listed = mcp_types.ListToolsResult(tools=[tool.listing for tool in tools.values()])

    async def list_tools(context: _Context, params: _Page | None) -> mcp_types.ListToolsResult:
        return listed

    async def call_tool(context: _Context, params: mcp_types.CallToolRequestParams) -> mcp_types.CallToolResult:
        tool = tools.get(params.name)
        if tool is None:
            raise MCPError(mcp_types.INVALID_PARAMS, f"there is no such tool; there are {', '.join(tools)}")
        assert context.request is not None
        visit: Visit = context.request.scope[_VISIT]
        return await perform(params.name, tool, params.arguments or {}, context.meta, visit)

    def input_schema(name: str) -> Mapping[str, object] | None:
        return tools[name].listing.input_schema if name in tools else None

    server = Server(
        "baton",
        version=version,
        title="Baton",
        instructions=_INSTRUCTIONS,
        # Else it would make the whole list for every call.
        get_tool_input_schema=input_schema,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )
    # Without its own spans, which would bear any name that a caller makes up; ours are of tools that there are.
    server.middleware[:] = [name_faulty_params]
    return server


def _visit(request: Request, token: str) -> Visit:
    request_id = request.scope["request_id"]
    metadata = call_metadata(request_id, token)
    return Visit(metadata, PATH, request_id, trace.get_current_span(), request.scope.setdefault("noted", {}))


async def _respond(server: Server, request: Request, body: bytes, visit: Visit) -> Response:
    """The library's answer to one request. Nothing of it outlives the answer, so any gateway can serve the next."""
    unread = [{"type": "http.request", "body": body, "more_body": False}]
    answer = _Answer()

    async def receive() -> Message:
        if not unread:
            # Whether the client leaves is watched from outside.
            await anyio.sleep_forever()
        return unread.pop()

    manager = StreamableHTTPSessionManager(
        server, json_response=True, stateless=True, max_request_body_size=MAX_BODY_BYTES
    )
    async with manager.run():
        await manager.handle_request({**request.scope, _VISIT: visit}, receive, answer.send)
    return answer.response()


class _Answer:
    """An answer that is kept instead of sent."""

    def __init__(self) -> None:
        self._start: Message = {}
        self._chunks: list[bytes] = []

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
        else:
            self._chunks.append(message.get("body", b""))

    def response(self) -> Response:
        response = Response(b"".join(self._chunks), self._start["status"])
        response.raw_headers = list(self._start["headers"])
        return response
