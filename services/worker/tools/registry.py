"""The tool servers that are registered, and word back of the tools they offer."""

import asyncio
import contextlib
import logging
import random

from baton.tasks.v1 import tool_pb2, tool_service_pb2, tool_service_pb2_grpc
from mcp.types import Tool

from services.chassis import loops
from services.chassis.errors import ServiceError
from services.worker.failures import InputNotValid, InternalFault, StepFailed
from services.worker.tools import offers
from services.worker.tools.mcp_pool import McpPool

REFRESH_SECONDS = 2.0
INTRODUCE_SECONDS = 300.0
"""How often a server is asked for its tools while nothing else is a reason to."""
_PAGE = 200
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
_log = logging.getLogger(__name__)


class Registry:
    """Follows the registered servers, and introduces each by asking it for its tools: a new one at once, and every
    one again when a session with it was opened and every `introduce_every` seconds."""

    def __init__(
        self,
        stub: tool_service_pb2_grpc.ToolServiceStub,
        pool: McpPool,
        *,
        introduce_every: float = INTRODUCE_SECONDS,
    ) -> None:
        self._stub = stub
        self._pool = pool
        self._introduce_every = introduce_every
        self._servers: dict[str, tool_pb2.ToolServer] = {}
        self._introductions: dict[str, asyncio.Task[None]] = {}
        self._refreshing: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Looks every 2 s until cancelled."""

        async def look() -> float:
            self._pool.retire_outdated()
            await self._refresh()
            return REFRESH_SECONDS

        try:
            await loops.forever("tool-registry", look, timeout=30)
        finally:
            await self._stop()

    async def server(self, name: str) -> tool_pb2.ToolServer:
        """A registered server. Raises InputNotValid when there is none, InternalFault when nobody can tell."""
        if name not in self._servers:
            try:
                await self._refresh()
            except ServiceError:
                raise InternalFault("the registered tool servers cannot be looked up right now") from None
        if name not in self._servers:
            raise InputNotValid(f"tool server {name} is not registered")
        return self._servers[name]

    async def _refresh(self) -> None:
        """Reads all servers; callers that come meanwhile share the answer."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._read())
        await asyncio.shield(self._refreshing)

    async def _read(self) -> None:
        found = await self._list()
        for name in [name for name, server in self._servers.items() if found.get(name) != server]:
            del self._servers[name]
            self._pool.forget(name)
            self._stop_introduction(name)
        for name, server in found.items():
            if name not in self._servers:
                self._servers[name] = server
                self._introductions[name] = asyncio.create_task(self._keep_introduced(server))

    async def _list(self) -> dict[str, tool_pb2.ToolServer]:
        servers: dict[str, tool_pb2.ToolServer] = {}
        cursor = ""
        while True:
            request = tool_service_pb2.ListToolServersRequest(limit=_PAGE, cursor=cursor)
            page = await self._stub.ListToolServers(request)
            servers.update({server.name: server for server in page.items})
            if not page.has_more:
                return servers
            cursor = page.next_cursor

    async def _keep_introduced(self, server: tool_pb2.ToolServer) -> None:
        """Introduces the server again and again, until cancelled; after a failure with growing pauses."""
        opening, pause = self._pool.opening(server.name), _FIRST_PAUSE_SECONDS
        while True:
            if await self._introduce(server, opening):
                pause = _FIRST_PAUSE_SECONDS
                await _wait(opening, self._introduce_every)
            else:
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    async def _introduce(self, server: tool_pb2.ToolServer, opening: asyncio.Event) -> bool:
        """Reports the server's tools, so that tasks can be checked against them. Answers whether it worked."""
        try:
            tools = await self._pool.tools(server)
            opening.clear()  # only now: asking may itself have opened the session
            await self._report(server, tools)
        except Exception as error:
            expected = isinstance(error, ServiceError | StepFailed)
            _log.warning(
                "tools_not_reported",
                extra={"server": server.name, "error": str(error)},
                exc_info=None if expected else error,
            )
            return False
        return True

    async def _report(self, server: tool_pb2.ToolServer, tools: tuple[Tool, ...]) -> None:
        usable = offers.as_messages(server.name, tools)
        await self._stub.ReportTools(tool_service_pb2.ReportToolsRequest(server=server.name, tools=usable))
        _log.info("tools_reported", extra={"server": server.name, "tools": len(usable)})

    async def _stop(self) -> None:
        tasks = [task for task in (*self._introductions.values(), self._refreshing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _stop_introduction(self, name: str) -> None:
        introduction = self._introductions.pop(name, None)
        if introduction is not None:
            introduction.cancel()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
