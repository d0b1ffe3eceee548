"""One MCP session: opened once, shared by all calls to its server, closed when the server is gone or not wanted."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from baton.tasks.v1 import tool_pb2
from mcp import Client, MCPError
from mcp.types import CONNECTION_CLOSED, CallToolResult, Implementation, Tool

from services.pipeline.errors import clip
from services.worker.failures import InputNotValid, ToolFailed, ToolTimedOut
from services.worker.tools.schemas import ToolSchemas
from services.worker.tools.transports import Refusal, StandardError, noting_refusal, open_transport

_OPEN_SECONDS = 30.0
# A call ends by its own timeout, which is at most an hour; this only replaces the limit meant for opening.
_CALL_SECONDS = 3700.0
_MAX_TOOLS = 1000
_MAX_PAGES = 100
_SESSION_ENDED = "Session terminated"
# The code alone does not tell: servers use it for errors of their own, too.
_CONNECTION_CLOSED = "Connection closed"
_log = logging.getLogger(__name__)


class SessionEnded(ToolFailed):
    """The server does not know this session any more and did not do what was asked: another session may."""


@dataclass
class _Opened:
    client: Client
    tools: tuple[Tool, ...]
    schemas: Mapping[str, ToolSchemas]
    told: bool = False
    """Somebody was told of these tools: who asks again wants to know what they are now."""


class Connection:
    """A session with one tool server, from the first call that needs it until it is retired or breaks."""

    def __init__(self, server: tool_pb2.ToolServer, on_open: Callable[[], None]) -> None:
        self.server = server
        self._on_open = on_open
        self._opened: asyncio.Future[_Opened] = asyncio.get_running_loop().create_future()
        self._closing = asyncio.Event()
        self._calls = 0
        self._retired = False
        # anyio's scopes must be left by the task that entered them, so one task owns the session all its life.
        self._owner = asyncio.create_task(self._live(), name=f"mcp-{server.name}")

    @property
    def usable(self) -> bool:
        """Whether new calls may use it."""
        return not (self._retired or self._closing.is_set() or self._owner.done())

    @property
    def ended(self) -> bool:
        """Whether nothing is left of it."""
        return self._owner.done()

    async def tools(self) -> tuple[Tool, ...]:
        """What the server says it has now. Raises ToolFailed when it cannot be reached."""
        with self._in_use():
            session = await self._session()
            if session.told:
                session.tools = await self._ask_again(session)
                session.schemas = self._schemas(session.tools)
            session.told = True
            return session.tools

    async def call(
        self, tool: str, arguments: dict[str, Any], meta: dict[str, Any], *, timeout: float
    ) -> CallToolResult:
        """Calls a tool and waits `timeout` seconds for its answer, not counting the time it takes to open.

        Raises InputNotValid when the input does not fit, ToolTimedOut, and ToolFailed when there is no answer. A
        stdio server that let the time pass is not called again: it is retired, and so ended with its processes.
        """
        with self._in_use():
            session = await self._session()
            self._check(session, tool, arguments)
            try:
                async with asyncio.timeout(timeout):
                    return await self._send(session, tool, arguments, meta)
            except TimeoutError:
                if self.server.transport == tool_pb2.TOOL_TRANSPORT_STDIO:
                    self.retire()
                raise ToolTimedOut(f"no answer from tool server {self.server.name} within {timeout:g} s") from None

    def retire(self) -> None:
        """Takes no more calls, and closes when those in progress have ended."""
        self._retired = True
        self._close_if_idle()

    async def close(self) -> None:
        """Closes now; returns when the server's processes are gone."""
        self._retired = True
        self._closing.set()
        await asyncio.wait([self._owner])

    async def _session(self) -> _Opened:
        # Shielded: a caller that gives up must not spoil the opening for the others.
        try:
            async with asyncio.timeout(_OPEN_SECONDS):
                return await asyncio.shield(self._opened)
        except TimeoutError:
            raise ToolFailed(f"tool server {self.server.name} was not ready within {_OPEN_SECONDS:g} s") from None

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1
            self._close_if_idle()

    async def _ask_again(self, session: _Opened) -> tuple[Tool, ...]:
        try:
            async with asyncio.timeout(_OPEN_SECONDS):
                return await _list_tools(session.client)
        except Exception as error:
            raise self._call_failure(error, Refusal()) from None

    async def _send(
        self, session: _Opened, tool: str, arguments: dict[str, Any], meta: dict[str, Any]
    ) -> CallToolResult:
        with noting_refusal() as refusal:
            try:
                return await session.client.call_tool(tool, arguments, _CALL_SECONDS, meta=meta)  # type: ignore[arg-type]
            except Exception as error:
                raise self._call_failure(error, refusal) from None

    def _check(self, session: _Opened, tool: str, arguments: dict[str, Any]) -> None:
        schema = session.schemas.get(tool)
        if schema is None:
            names = ", ".join(sorted(session.schemas)) or "none"
            raise InputNotValid(f"tool server {self.server.name} has no tool {tool}; it has {clip(names, 500)}")
        schema.check_input(arguments)

    def _call_failure(self, error: Exception, refusal: Refusal) -> ToolFailed:
        if isinstance(error, MCPError):
            if error.message == _SESSION_ENDED:
                self.retire()
                return SessionEnded(f"tool server {self.server.name} has forgotten the session")
            if (error.code, error.message) == (CONNECTION_CLOSED, _CONNECTION_CLOSED):
                self.retire()
                return ToolFailed(f"tool server {self.server.name} ended before it answered")
        message = f"tool server {self.server.name}: {reason(error)}{refusal}"
        return ToolFailed(message, retry_after=refusal.retry_after)

    def _close_if_idle(self) -> None:
        if self._retired and not self._calls:
            self._closing.set()

    async def _live(self) -> None:
        stderr = StandardError(self.server.name)
        with noting_refusal() as refusal:
            try:
                await self._hold_open(stderr)
            except Exception as error:
                why = f"{reason(error)}{refusal}"
                _log.warning("tool_server_connection_broke", extra={"server": self.server.name, "error": why})
                self._fail_opening(why, stderr, refusal.retry_after)
            finally:
                self._closing.set()
                self._fail_opening("it was closed", stderr)

    async def _hold_open(self, stderr: StandardError) -> None:
        transport = open_transport(self.server, self._closing, stderr)
        client = Client(
            transport,
            client_info=Implementation(name="baton", version="1"),
            read_timeout_seconds=_OPEN_SECONDS,
        )
        async with client:
            tools = await _list_tools(client)
            self._opened.set_result(_Opened(client, tools, self._schemas(tools)))
            self._on_open()
            await self._closing.wait()

    def _schemas(self, tools: tuple[Tool, ...]) -> Mapping[str, ToolSchemas]:
        return {tool.name: ToolSchemas(f"{self.server.name}.{tool.name}", tool) for tool in tools}

    def _fail_opening(self, why: str, stderr: StandardError, retry_after: float | None = None) -> None:
        if not self._opened.done():
            name = self.server.name
            _log.warning("tool_server_not_opened", extra={"server": name, "error": why, "stderr": stderr.tail})
            failure = ToolFailed(f"tool server {name} cannot be reached: {why}", retry_after=retry_after)
            self._opened.set_exception(failure)
            # Nobody may be waiting: read it, so that it is not reported as forgotten.
            self._opened.exception()


def reason(error: BaseException) -> str:
    """What went wrong, in one line, out of however many groups of errors it is wrapped in."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    match error:
        case MCPError():
            return clip(error.message, 500)
        case OSError() if error.strerror:
            return error.strerror.lower()
    return clip(f"{type(error).__name__}: {error}", 500)


async def _list_tools(client: Client) -> tuple[Tool, ...]:
    tools: list[Tool] = []
    cursor: str | None = None
    for _ in range(_MAX_PAGES):
        page = await client.list_tools(cursor=cursor, cache_mode="refresh")
        tools += page.tools
        cursor = page.next_cursor
        if cursor is None or len(tools) >= _MAX_TOOLS:
            break
    return tuple(tools[:_MAX_TOOLS])
