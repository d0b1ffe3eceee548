"""One MCP session: opened once, shared by all calls to its server, closed when the server is gone or not wanted."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from baton.tasks.v1 import tool_pb2
from mcp import Client, MCPError
from mcp.types import (
    CONNECTION_CLOSED,
    HEADER_MISMATCH,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    Implementation,
    InputRequiredResult,
    Tool,
    ToolListChangedNotification,
)
from pydantic import TypeAdapter, ValidationError

from services.chassis.redaction import Redaction
from services.pipeline.errors import PipelineError, clip
from services.worker.failures import InputNotValid, ToolFailed, ToolTimedOut
from services.worker.limits import ProcessLimits
from services.worker.secrets.files import SHORTEST_VALUE
from services.worker.secrets.folder import Secrets
from services.worker.tools.schemas import ToolSchemas
from services.worker.tools.transports import Refusal, StandardError, noting_refusal, open_transport

# A call ends by its own timeout, which is at most an hour; this only replaces the limit meant for opening.
_CALL_SECONDS = 3700.0
# A stdio server that does not want to end has 10 s; somewhat more says that something is wrong here.
_CLOSE_SECONDS = 15.0
_LEAVE_SECONDS = 5.0
_MAX_TOOLS = 1000
_MAX_PAGES = 100
_SESSION_ENDED = "Session terminated"
# The code alone does not tell: servers use it for errors of their own, too.
_CONNECTION_CLOSED = "Connection closed"
_answer: TypeAdapter[CallToolResult | InputRequiredResult] = TypeAdapter(CallToolResult | InputRequiredResult)
_log = logging.getLogger(__name__)


class SessionEnded(ToolFailed):
    """The server does not know this session any more and did not do what was asked: another session may."""


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for, in seconds."""

    to_open: float = 30.0
    """Until it has told its tools."""
    to_linger: float = 60.0
    """Other calls of a session in which one was given up may go on for so long; then they end with it."""


@dataclass
class _Opened:
    client: Client
    tools: tuple[Tool, ...]
    schemas: Mapping[str, ToolSchemas]
    told: bool = False
    """Somebody was told of these tools: who asks again wants to know what they are now."""


class Connection:
    """A session with one tool server, from the first call that needs it until it is retired or breaks."""

    def __init__(
        self,
        server: tool_pb2.ToolServer,
        on_news: Callable[[], None],
        secrets: Secrets,
        limits: ProcessLimits | None = None,
        patience: Patience | None = None,
    ) -> None:
        """`on_news` is called when the session is open or cannot be opened, and when the server says that its
        tools have changed."""
        self.server = server
        self._on_news = on_news
        self._secrets = secrets
        self._started_with: dict[str, str] | None = None
        self._own = Redaction()
        self._limits = limits or ProcessLimits()
        self._patience = patience or Patience()
        self._opened: asyncio.Future[_Opened] = asyncio.get_running_loop().create_future()
        self._opening: asyncio.Timeout | None = None
        self._closing = asyncio.Event()
        self._why_closed = ""
        self._calls = 0
        self._retired = False
        self._lingering: asyncio.TimerHandle | None = None
        # anyio's scopes must be left by the task that entered them, so one task owns the session all its life.
        self._owner = asyncio.create_task(self._live(), name=f"mcp-{server.name}")

    @property
    def usable(self) -> bool:
        """Whether new calls may use it."""
        return not (self._retired or self._closing.is_set() or self._owner.done() or self._is_outdated())

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
            return tuple(map(self._without_secrets, session.tools))

    async def call(
        self, tool: str, arguments: dict[str, Any], meta: dict[str, Any], *, timeout: float
    ) -> CallToolResult:
        """Calls a tool and waits `timeout` seconds for its answer, not counting the time it takes to open.

        Raises InputNotValid when the input does not fit, ToolTimedOut, and ToolFailed when there is no answer or not
        one that the tool's schema promises. A server that let the time pass is told to stop. It may not listen, so
        its session is retired: a stdio server ends with it, and of an HTTP server the request is closed.
        """
        with self._in_use():
            session = await self._session()
            schemas = self._require(session, tool)
            schemas.check_input(arguments, self._secrets.clean)
            try:
                async with asyncio.timeout(timeout):
                    result = await self._send(session, tool, arguments, meta)
            except TimeoutError:
                self._give_up_soon()
                raise ToolTimedOut(f"no answer from tool server {self.server.name} within {timeout:g} s") from None
            except asyncio.CancelledError:
                self._give_up_soon()
                raise
            if not result.is_error:
                schemas.check_output(result.structured_content, self._secrets.clean)
            return result

    def retire(self) -> None:
        """Takes no more calls, and closes when those in progress have ended."""
        self._retired = True
        self._close_if_idle()

    async def close(self) -> None:
        """Closes now; returns when the server's processes are gone."""
        self._retired = True
        self._close("it was closed")
        await asyncio.wait([self._owner], timeout=_CLOSE_SECONDS)
        if not self._owner.done():
            _log.error("tool_server_not_closed", extra={"server": self.server.name})
            self._owner.cancel()
            await asyncio.wait([self._owner], timeout=_LEAVE_SECONDS)

    def _is_outdated(self) -> bool:
        """Whether a secret in the server's environment is another one by now, or gone."""
        if self._started_with is None:
            return False
        try:
            return self._started_with != self._secrets.environment(self.server.env)
        except PipelineError:
            return True

    def _without_secrets(self, tool: Tool) -> Tool:
        told = tool.model_dump(mode="json", by_alias=True, exclude_unset=True)
        cleaned = self._secrets.clean(told)
        return tool if cleaned is told else Tool.model_validate(cleaned)

    def _clean(self, text: str) -> str:
        """Why the server does not start or answer, without secrets and without what its `env` says: who may read the
        one may not read the other."""
        return self._own.clean(self._secrets.clean(text))

    async def _session(self) -> _Opened:
        # Shielded: a caller that gives up must not spoil the opening for the others.
        try:
            async with asyncio.timeout(self._patience.to_open):
                return await asyncio.shield(self._opened)
        except TimeoutError:
            raise ToolFailed(self._not_ready()) from None

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
            async with asyncio.timeout(self._patience.to_open):
                return await _list_tools(session.client)
        except TimeoutError:
            self._give_up_soon()
            raise ToolFailed(f"tool server {self.server.name} does not tell its tools any more") from None
        except Exception as error:
            raise self._call_failure(error, Refusal()) from None

    async def _send(
        self, session: _Opened, tool: str, arguments: dict[str, Any], meta: dict[str, Any]
    ) -> CallToolResult:
        # Not by `call_tool`, whose check of the output a server can make last for ever.
        call = CallToolRequest(params=CallToolRequestParams(name=tool, arguments=arguments, _meta=meta))  # type: ignore[arg-type]
        with noting_refusal() as refusal:
            try:
                result = await session.client.session.send_request(call, _answer, _CALL_SECONDS)
            except Exception as error:
                raise self._call_failure(error, refusal) from None
        if isinstance(result, InputRequiredResult):
            raise ToolFailed(f"tool server {self.server.name} asks for more input, which nobody is there to give")
        return result

    def _require(self, session: _Opened, tool: str) -> ToolSchemas:
        schemas = session.schemas.get(tool)
        if schemas is None:
            names = self._secrets.clean(", ".join(sorted(session.schemas))) or "none"
            raise InputNotValid(f"tool server {self.server.name} has no tool {tool}; it has {clip(names, 500)}")
        return schemas

    def _call_failure(self, error: Exception, refusal: Refusal) -> ToolFailed:
        if isinstance(error, MCPError):
            if error.message == _SESSION_ENDED:
                self.retire()
                return SessionEnded(f"tool server {self.server.name} has forgotten the session")
            if (error.code, error.message) == (CONNECTION_CLOSED, _CONNECTION_CLOSED):
                self.retire()
                why = self._why_closed or "it hung up"
                return ToolFailed(f"tool server {self.server.name} ended before it answered: {why}")
            if error.code == HEADER_MISMATCH:
                self._on_news()  # the server's tools are others than it was called by: whoever asks for them will know
        message = f"tool server {self.server.name}: {reason(error, self._clean)}{refusal}"
        return ToolFailed(message, retry_after=refusal.retry_after)

    def _give_up_soon(self) -> None:
        """A call was given up that may go on all the same: the session ends before long, with all that is in it."""
        if self._lingering is None:
            why = "it was ended, because another call had not been answered in time"
            loop = asyncio.get_running_loop()
            self._lingering = loop.call_later(self._patience.to_linger, self._close, why)
        self.retire()

    def _close(self, why: str) -> None:
        if not self._closing.is_set():
            self._why_closed = why
            self._closing.set()
            if self._opening is not None and not self._opening.expired():
                self._opening.reschedule(0)  # nobody waits for it any more

    def _close_if_idle(self) -> None:
        if self._retired and not self._calls:
            self._close("it was closed")

    async def _live(self) -> None:
        stderr = StandardError(self.server.name, self._clean)
        with noting_refusal() as refusal:
            try:
                await self._hold_open(stderr)
            except Exception as error:
                why = self._why_closed or f"{reason(error, self._clean)}{refusal}"
                _log.warning("tool_server_connection_broke", extra={"server": self.server.name, "error": why})
                self._fail_opening(f"tool server {self.server.name} cannot be reached: {why}", stderr, refusal)
            finally:
                self._close("it was closed")
                if self._lingering is not None:
                    self._lingering.cancel()
                self._fail_opening(
                    f"tool server {self.server.name} cannot be reached: {self._why_closed}", stderr, refusal
                )

    async def _hold_open(self, stderr: StandardError) -> None:
        environment = self._secrets.environment(self.server.env)
        if environment != dict(self.server.env):
            self._started_with = environment
        self._own = Redaction(value for value in environment.values() if len(value) >= SHORTEST_VALUE)
        transport = open_transport(self.server, environment, self._close, stderr, self._limits)
        client = Client(
            transport,
            client_info=Implementation(name="baton", version="1"),
            read_timeout_seconds=self._patience.to_open,
            message_handler=self._on_message,
        )
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(self._patience.to_open) as self._opening:
                    await stack.enter_async_context(client)
                    tools = await _list_tools(client)
            except TimeoutError:
                self._close(f"it was not ready within {self._patience.to_open:g} s")
                raise
            finally:
                self._opening = None
            await stack.enter_async_context(self._listening(client))
            self._opened.set_result(_Opened(client, tools, self._schemas(tools)))
            self._on_news()
            await self._closing.wait()

    async def _on_message(self, message: object) -> None:
        if isinstance(message, ToolListChangedNotification):
            self._on_news()

    @asynccontextmanager
    async def _listening(self, client: Client) -> AsyncIterator[None]:
        """Hears of new tools while the block lasts: from servers that tell only those who ask to be told."""
        listening = asyncio.create_task(_listen(client))
        try:
            yield
        finally:
            listening.cancel()
            await asyncio.wait([listening], timeout=_LEAVE_SECONDS)

    def _schemas(self, tools: tuple[Tool, ...]) -> Mapping[str, ToolSchemas]:
        return {tool.name: ToolSchemas(f"{self.server.name}.{tool.name}", tool) for tool in tools}

    def _not_ready(self) -> str:
        return f"tool server {self.server.name} was not ready within {self._patience.to_open:g} s"

    def _fail_opening(self, message: str, stderr: StandardError, refusal: Refusal) -> None:
        if not self._opened.done():
            name = self.server.name
            _log.warning("tool_server_not_opened", extra={"server": name, "error": message, "stderr": stderr.tail})
            self._opened.set_exception(ToolFailed(message, retry_after=refusal.retry_after))
            # Nobody may be waiting: read it, so that it is not reported as forgotten.
            self._opened.exception()
            self._on_news()


def reason(error: BaseException, clean: Callable[[str], str]) -> str:
    """What went wrong, in one line, out of however many groups of errors it is wrapped in; gone through `clean`."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    match error:
        case MCPError():
            return clip(clean(error.message), 500)
        case PipelineError():
            return clean(str(error))
        case OSError() if error.strerror:
            return error.strerror.lower()
        case ValidationError():
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"]))
            return clip(clean(f"it answered what is not MCP: {place}: {first['msg'].lower()}"), 500)
    return clip(clean(f"{type(error).__name__}: {error}"), 500)


async def _listen(client: Client) -> None:
    """Asks to be told of new tools. The words themselves arrive at the message handler."""
    with contextlib.suppress(Exception):  # most servers do not know this, or tell without being asked
        async with client.listen(tools_list_changed=True) as changes:
            async for _ in changes:
                pass


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
