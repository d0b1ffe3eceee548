"""The MCP sessions of this worker: one per tool server, opened when first needed."""

import asyncio
from collections import defaultdict
from typing import Any

from baton.tasks.v1 import tool_pb2
from mcp.types import CallToolResult, Tool

from services.worker.limits import ProcessLimits
from services.worker.secrets.folder import Secrets
from services.worker.tools.connection import Connection, Patience, SessionEnded


class McpPool:
    """Finds, opens and closes the sessions. Of each server at most `calls` tools are called at one time.

    Whoever calls takes a turn first.
    """

    def __init__(
        self,
        calls: int = 10,
        secrets: Secrets | None = None,
        *,
        limits: ProcessLimits | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._secrets = secrets or Secrets()
        self._limits = limits
        self._patience = patience
        self._current: dict[str, Connection] = {}
        self._open: set[Connection] = set()
        self._news: dict[str, asyncio.Event] = {}
        self._turns = defaultdict[str, asyncio.Semaphore](lambda: asyncio.Semaphore(calls))

    async def tools(self, server: tool_pb2.ToolServer) -> tuple[Tool, ...]:
        """What `server` offers now. Raises ToolFailed when it cannot be reached."""
        try:
            return await self._connection(server).tools()
        except SessionEnded:
            return await self._connection(server).tools()

    def news(self, name: str) -> asyncio.Event:
        """Set whenever a session with the server of this name was opened or could not be, or it says that it has other
        tools now; who waits for it clears it."""
        return self._news.setdefault(name, asyncio.Event())

    def turn(self, name: str) -> asyncio.Semaphore:
        """What is held while a tool of the server of this name is called."""
        return self._turns[name]

    async def call(
        self, server: tool_pb2.ToolServer, tool: str, arguments: dict[str, Any], *, timeout: float, key: str
    ) -> CallToolResult:
        """Calls a tool of `server` and waits `timeout` seconds for the answer.

        Raises InputNotValid, ToolTimedOut and ToolFailed.
        """
        meta = {"baton/idempotency-key": key}
        try:
            return await self._connection(server).call(tool, arguments, meta, timeout=timeout)
        except SessionEnded:
            return await self._connection(server).call(tool, arguments, meta, timeout=timeout)

    def forget(self, name: str) -> None:
        """The server is gone or has changed: its session ends after the calls in progress."""
        connection = self._current.pop(name, None)
        if connection is not None:
            connection.retire()

    def retire_outdated(self) -> None:
        """Servers that were started with a secret which has changed since end after the calls in progress."""
        self._secrets.look()
        for connection in self._current.values():
            if not connection.usable:
                connection.retire()

    async def close(self) -> None:
        """Closes every session; returns when no process of a stdio server is left."""
        await asyncio.gather(*(connection.close() for connection in self._open))

    def _connection(self, server: tool_pb2.ToolServer) -> Connection:
        known = self._current.get(server.name)
        if known is not None and known.usable and is_same_place(known.server, server):
            return known
        if known is not None:
            known.retire()
        self._open = {connection for connection in self._open if not connection.ended}
        connection = Connection(server, self.news(server.name).set, self._secrets, self._limits, self._patience)
        self._current[server.name] = connection
        self._open.add(connection)
        return connection


def is_same_place(one: tool_pb2.ToolServer, other: tool_pb2.ToolServer) -> bool:
    """Whether a session with the one is a session with the other, whatever else is said of them."""
    return (one.name, one.transport, one.url, one.command, one.env) == (
        other.name,
        other.transport,
        other.url,
        other.command,
        other.env,
    )
