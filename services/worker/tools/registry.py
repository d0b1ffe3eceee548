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
from services.worker.tools.mcp_pool import McpPool, is_same_place

REFRESH_SECONDS = 2.0
INTRODUCE_SECONDS = 300.0
"""How often a server is asked for its tools while nothing else is a reason to."""
_REST_SECONDS = 1.0
"""How soon it is asked again at the earliest, whatever it says."""
_PAGE = 200
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
# What the contract lets a report say.
_LONGEST_ERROR = 500
_log = logging.getLogger(__name__)


class Registry:
    """Follows the registered servers, and introduces each by asking it for its tools: a new one at once, and every
    one again when a session with it was opened or could not be, when it says that it has others, when the service has
    forgotten them, and every `introduce_every` seconds. One that is disabled is known and not asked."""

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
        for name, server in self._servers.items():
            # A session goes on while only the word of who may use it has changed.
            now = found.get(name)
            if now is None or not now.enabled or not is_same_place(server, now):
                self._pool.forget(name)
                self._stop_introduction(name)
        self._servers = found
        for name, server in found.items():
            if server.enabled and name not in self._introductions:
                self._introductions[name] = asyncio.create_task(self._keep_introduced(server))
            elif not server.status.HasField("tools_known_at"):
                # It was deleted and registered anew, or was elsewhere for a moment, and nobody has looked meanwhile.
                self._pool.news(name).set()

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
        news, pause = self._pool.news(server.name), _FIRST_PAUSE_SECONDS
        while True:
            if await self._introduce(server, news):
                pause = _FIRST_PAUSE_SECONDS
                await asyncio.sleep(_REST_SECONDS)
                await _wait(news, self._introduce_every)
            else:
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    async def _introduce(self, server: tool_pb2.ToolServer, news: asyncio.Event) -> bool:
        """Reports the server's tools, so that tasks can be checked against them. Answers whether it worked."""
        try:
            tools = await self._pool.tools(server)
            news.clear()  # only now: asking may itself have opened the session
            await self._report(server, tools)
        except StepFailed as failure:
            self._log(server, failure)
            await self._report_failure(server, failure)
            return False
        except Exception as error:
            self._log(server, error)
            return False
        return True

    async def _report(self, server: tool_pb2.ToolServer, tools: tuple[Tool, ...]) -> None:
        usable = offers.as_messages(server.name, tools)
        await self._stub.ReportTools(tool_service_pb2.ReportToolsRequest(server=server.name, tools=usable))
        _log.info("tools_reported", extra={"server": server.name, "tools": len(usable)})

    async def _report_failure(self, server: tool_pb2.ToolServer, failure: StepFailed) -> None:
        """Tells why the tools are not known, for those who look at the server."""
        error = str(failure)[:_LONGEST_ERROR].replace("\0", "")
        try:
            await self._stub.ReportTools(tool_service_pb2.ReportToolsRequest(server=server.name, error=error))
        except ServiceError as why:
            self._log(server, why)

    def _log(self, server: tool_pb2.ToolServer, error: Exception) -> None:
        expected = isinstance(error, ServiceError | StepFailed)
        _log.warning(
            "tools_not_reported",
            extra={"server": server.name, "error": str(error)},
            exc_info=None if expected else error,
        )

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
