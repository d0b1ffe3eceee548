"""The real MCP client, in front of the garden."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.unit.gateway.garden import TOKEN, Garden

URL = "http://gateway/mcp"
MODES = ("legacy", "auto")
"""How it meets a server: by the handshake of the protocol before 2026, or without."""
HEADERS = {"Authorization": f"Bearer {TOKEN}", "Accept": "application/json, text/event-stream"}


@asynccontextmanager
async def open_client(garden: Garden, mode: Any = "auto", **headers: str) -> AsyncIterator[Client]:
    transport = httpx2.ASGITransport(garden.app)
    async with (
        httpx2.AsyncClient(transport=transport, headers=HEADERS | headers) as http,
        Client(streamable_http_client(URL, http_client=http), mode=mode) as client,
    ):
        yield client


def message(method: str, **params: Any) -> dict[str, Any]:
    """A request of JSON-RPC."""
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def call(tool: str, /, **arguments: Any) -> dict[str, Any]:
    """A request that calls a tool."""
    return message("tools/call", name=tool, arguments=arguments)
