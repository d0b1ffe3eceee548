"""Servers over HTTP that hang, flood, lie and answer too much."""

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from baton.tasks.v1 import tool_pb2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from services.worker.failures import ToolFailed, ToolTimedOut
from services.worker.tools import results
from services.worker.tools.connection import Patience
from services.worker.tools.mcp_pool import McpPool
from services.worker.tools.pace import MAX_MESSAGE_BYTES
from tests.support import proc
from tests.support.mcp_servers import serve_app
from tests.support.waiting import await_until

MEGABYTE = 2**20


class Server:
    """Speaks MCP of 2025-11-25 with JSON answers, and answers calls of tools as it is told."""

    def __init__(self) -> None:
        self.sessions = 0
        self.hanging = 0
        """Calls whose request is open and will never be answered."""
        self.canceled: list[Any] = []
        self.deaf = False
        """Does not answer the end of a session."""

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/mcp", self, methods=["GET", "POST", "DELETE"])])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if request.method == "DELETE" and self.deaf:
            await asyncio.Event().wait()
        if request.method != "POST":
            await Response(status_code=405)(scope, receive, send)
            return
        message = await request.json()
        answer = await self._answer(message, receive)
        if answer is not None:
            await answer(scope, receive, send)

    async def _answer(self, message: dict[str, Any], receive: Receive) -> Response | None:
        match message["method"]:
            case "initialize":
                self.sessions += 1
                information = {"serverInfo": {"name": "web", "version": "1"}, "capabilities": {"tools": {}}}
                answer = result(message, protocolVersion="2025-11-25", **information)
                answer.headers["mcp-session-id"] = str(self.sessions)
                return answer
            case "tools/list":
                tools = [{"name": name, "inputSchema": {"type": "object"}} for name in ("hang", *ANSWERS)]
                return result(message, tools=tools)
            case "tools/call" if message["params"]["name"] == "hang":
                self.hanging += 1
                while (await receive())["type"] != "http.disconnect":
                    pass
                self.hanging -= 1
                return None
            case "tools/call":
                return ANSWERS[message["params"]["name"]](message)
            case "notifications/cancelled":
                self.canceled.append(message["params"]["requestId"])
        if "id" not in message:
            return Response(status_code=202)
        return as_json({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "no such method"}})


def as_json(value: Any, **headers: str) -> Response:
    return Response(json.dumps(value), media_type="application/json", headers=headers)


def result(message: dict[str, Any], **result: Any) -> Response:
    return as_json({"jsonrpc": "2.0", "id": message["id"], "result": result})


def text(message: dict[str, Any], size: int) -> bytes:
    content = [{"type": "text", "text": "x" * size}]
    return json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": {"content": content}}).encode()


def events(*datas: bytes, endless: bool = False) -> Response:
    async def stream() -> AsyncIterator[bytes]:
        for data in datas:
            yield b"event: message\ndata: " + data + b"\n\n"
        while endless:
            await asyncio.sleep(0)  # or nobody would ever be told that the client has gone
            yield b"event: message\ndata: " + datas[-1] + b"\n\n"

    return StreamingResponse(stream(), media_type="text/event-stream")


def a_gigabyte() -> Response:
    async def stream() -> AsyncIterator[bytes]:
        yield b'{"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": "'
        for _ in range(1000):
            yield b"x" * MEGABYTE

    return StreamingResponse(stream(), media_type="application/json")


NOTIFICATION = b'{"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}'
ANSWERS: dict[str, Callable[[dict[str, Any]], Response]] = {
    "fine": lambda message: Response(text(message, 1), media_type="application/json"),
    "big": lambda message: Response(text(message, 10 * MEGABYTE), media_type="application/json"),
    "big_event": lambda message: events(text(message, 10 * MEGABYTE)),
    "huge": lambda message: a_gigabyte(),
    "huge_event": lambda message: events(text(message, MAX_MESSAGE_BYTES)),
    "bomb": lambda message: Response(
        gzip.compress(text(message, MEGABYTE)),
        media_type="application/json",
        headers={"content-encoding": "gzip"},
    ),
    "flood": lambda message: events(NOTIFICATION, endless=True),
    "no_json": lambda message: Response("{nonsense", media_type="application/json"),
    "no_event": lambda message: events(b"{nonsense"),
    "no_result": lambda message: result(message, content=[{"type": "pigeon"}]),
    "page": lambda message: Response("<html>", media_type="text/html"),
    "nothing": lambda message: events(),
    "accepted": lambda message: Response(status_code=202),
    "refused": lambda message: Response(status_code=500),
}


@pytest.fixture
async def server() -> Server:
    return Server()


@pytest.fixture
async def call(server: Server) -> AsyncIterator[Callable[..., Any]]:
    """Calls a tool of the server."""
    pool = McpPool(patience=Patience(to_linger=0.5))
    async with serve_app(server.app()) as url:
        registered = tool_pb2.ToolServer(name="web", transport=tool_pb2.TOOL_TRANSPORT_HTTP, url=url)

        async def make(tool: str, timeout: float = 20.0) -> Any:
            return results.from_mcp(await pool.call(registered, tool, {}, timeout=timeout, key="run:step"))

        yield make
        await pool.close()


async def test_a_call_that_hangs_is_told_to_stop_and_its_request_is_closed(
    server: Server, call: Callable[..., Any]
) -> None:
    for number in (1, 2):
        with pytest.raises(ToolTimedOut, match=r"within 0\.3 s"):
            await call("hang", timeout=0.3)
        await await_until(lambda: not server.hanging)
        assert len(server.canceled) == number
    assert await call("fine") == "x"


async def test_a_call_that_hangs_ends_although_others_go_on(server: Server, call: Callable[..., Any]) -> None:
    neighbour = asyncio.create_task(call("hang"))
    await await_until(lambda: server.hanging)
    with pytest.raises(ToolTimedOut):
        await call("hang", timeout=0.3)
    with pytest.raises(ToolFailed, match="another call had not been answered in time"):
        await neighbour
    await await_until(lambda: not server.hanging)


async def test_a_server_that_does_not_let_go_is_left(server: Server) -> None:
    pool = McpPool()
    async with serve_app(server.app()) as url:
        await pool.tools(tool_pb2.ToolServer(name="web", transport=tool_pb2.TOOL_TRANSPORT_HTTP, url=url))
        server.deaf = True
        begun = time.monotonic()
        await pool.close()
        assert time.monotonic() - begun < 10


@pytest.mark.parametrize("tool", ["big", "big_event"])
async def test_an_answer_of_ten_megabytes_is_told(call: Callable[..., Any], tool: str) -> None:
    answer = await call(tool)
    with pytest.raises(ToolFailed, match="output is 10485762 bytes, at most 4194304"):
        results.checked(answer)


@pytest.mark.parametrize(
    ("tool", "message"),
    [
        ("huge", "it has more than 33554432 bytes"),
        ("huge_event", "event exceeded the 33554432 byte limit"),
        ("bomb", "it is compressed"),
        ("no_json", "Failed to parse JSON response"),
        ("no_event", "Failed to parse SSE message"),
        ("no_result", "it answered what is not MCP: content.0"),
        ("page", "Unexpected content type: text/html"),
        ("nothing", "SSE stream ended without a response"),
        ("accepted", "202 Accepted"),
        ("refused", "Server returned an error response"),
    ],
)
async def test_an_answer_that_cannot_be_used_fails_its_call_alone(
    server: Server, call: Callable[..., Any], tool: str, message: str
) -> None:
    neighbour = asyncio.create_task(call("hang", timeout=2.0))
    await await_until(lambda: server.hanging)
    before = proc.reset_peak()
    with pytest.raises(ToolFailed, match=message):
        await call(tool)
    assert proc.peak() - before < 200 * MEGABYTE
    assert not neighbour.done()
    assert await call("fine") == "x"
    with pytest.raises(ToolTimedOut):
        await neighbour


async def test_a_flood_of_events_is_not_listened_to_without_end(call: Callable[..., Any]) -> None:
    flooded = asyncio.create_task(call("flood", timeout=3.0))
    begun = time.monotonic()
    await await_until(lambda: time.monotonic() > begun + 2)
    cpu = time.process_time()
    await await_until(lambda: time.monotonic() > begun + 2.5)
    assert time.process_time() - cpu < 0.3
    with pytest.raises(ToolTimedOut):
        await flooded
    assert await call("fine") == "x"
