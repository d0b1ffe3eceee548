"""A small MCP server whose tools misbehave on request.

`python -m tests.support.mcp_servers` speaks over stdio; `serve_over_http` serves in this process.
"""

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, TextContent
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.support.quiet_server import quiet_server
from tests.support.waiting import await_until

server = quiet_server("misbehaving")


@dataclass
class Calls:
    """How often a tool of the server in this process is called at one time."""

    now: int = 0
    most: int = 0

    def __enter__(self) -> None:
        self.now += 1
        self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        self.now -= 1


slow_calls = Calls()
flaky_calls = Counter[str]()
"""How often `flaky` of the server in this process was called, by name."""


class Gate:
    """Stands before an app and refuses requests: `answers` are what it says to those whose body has a text."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.answers: dict[bytes, Response] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        body = await Request(scope, receive).body()
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return messages.pop() if messages else await receive()

        answers = [answer for text, answer in self.answers.items() if text in body]
        await (answers[0] if answers else self._app)(scope, again, send)


@server.tool()
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@server.tool()
async def slow(seconds: float) -> str:
    """Answers after a while."""
    with slow_calls:
        await asyncio.sleep(seconds)
    return "done"


@server.tool()
def fail(message: str) -> str:
    """Fails and says so."""
    raise ToolError(message)


@server.tool(structured_output=False)
def flaky(name: str, failures: int) -> str:
    """Fails the first times that it is called with this name, then answers how often it was."""
    flaky_calls[name] += 1
    if flaky_calls[name] <= failures:
        raise ToolError(f"{name} failed for the {flaky_calls[name]}. time")
    return str(flaky_calls[name])


@server.tool(structured_output=False)
def key(context: Context) -> str:
    """Answers the call's idempotency key."""
    return str(context.request_context.meta["baton/idempotency-key"])


@server.tool(structured_output=False)
def busy(seconds: Any) -> CallToolResult:
    """Fails and asks to be left alone."""
    return CallToolResult(
        content=[TextContent(type="text", text="not now")], is_error=True, _meta={"retry_after_seconds": seconds}
    )


@server.tool(structured_output=False)
def big(size: int) -> str:
    """Answers `size` characters."""
    return "x" * size


@server.tool(structured_output=False)
def say(text: str) -> str:
    """Answers the text itself."""
    return text


@asynccontextmanager
async def serve_over_http(port: int = 0) -> AsyncIterator[str]:
    """Serves over streamable HTTP, on a port from the OS unless one is given; the value is the URL."""
    async with serve_app(server.streamable_http_app(), port) as url:
        yield url


@asynccontextmanager
async def serve_behind_gate() -> AsyncIterator[tuple[str, Gate]]:
    """Serves over streamable HTTP; the values are the URL and what can keep requests out."""
    gate = Gate(server.streamable_http_app())
    async with serve_app(gate) as url:
        yield url, gate


@asynccontextmanager
async def serve_app(app: ASGIApp, port: int = 0) -> AsyncIterator[str]:
    """Serves an app that answers at `/mcp`, whose URL is the value."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        config = uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=1)
        http = uvicorn.Server(config)
        serving = asyncio.create_task(http.serve([listener]))
        await await_until(lambda: http.started)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
        finally:
            http.should_exit = True
            await serving


if __name__ == "__main__":
    server.run()
