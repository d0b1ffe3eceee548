"""A small MCP server whose tools misbehave on request.

`python -m tests.support.mcp_servers` speaks over stdio; `serve_over_http` serves in this process.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

from tests.support.waiting import await_until

server = MCPServer("misbehaving", log_level="CRITICAL")


@server.tool()
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@server.tool()
async def slow(seconds: float) -> str:
    """Answers after a while."""
    await asyncio.sleep(seconds)
    return "done"


@server.tool()
def fail(message: str) -> str:
    """Fails and says so."""
    raise ToolError(message)


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
    with socket.create_server(("127.0.0.1", port)) as listener:
        config = uvicorn.Config(
            server.streamable_http_app(), log_config=None, lifespan="on", timeout_graceful_shutdown=1
        )
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
