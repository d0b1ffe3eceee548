"""The wires to MCP servers, and word of when one is cut."""

import asyncio
import logging
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

import httpx2
from baton.tasks.v1 import tool_pb2
from mcp.client.streamable_http import streamable_http_client

from services.chassis import retry_after
from services.worker.limits import ProcessLimits
from services.worker.tools.pace import MAX_MESSAGE_BYTES, Allowance, Pace
from services.worker.tools.stdio import open_stdio

_CONNECT_SECONDS = 10.0
# Longer than any call may take: calls are ended by their own timeout.
_READ_SECONDS = 3700.0
# To say goodbye with a DELETE.
_LEAVE_SECONDS = 5.0
_REFUSALS = (httpx2.codes.TOO_MANY_REQUESTS, httpx2.codes.SERVICE_UNAVAILABLE)
_TAIL_LINES = 20
_LINE_CHARACTERS = 500
# Of a line that has not ended so much is kept that a secret which begins in what is logged is there to its end.
_LINE_BYTES = 256 * 1024
_STDERR_AT_ONCE, _STDERR_PER_SECOND = 4 * 1024 * 1024, 1024 * 1024
_log = logging.getLogger(__name__)

Streams = tuple[Any, Any]


@dataclass
class Refusal:
    """An HTTP server's word that it will not do something now."""

    status: int = 0
    """429 or 503; 0 while nothing was refused."""
    retry_after: float | None = None
    """The seconds it asks to be left alone, when it says so."""

    def __str__(self) -> str:
        """What to add to the message of the failure."""
        if not self.status:
            return ""
        asks = "" if self.retry_after is None else f", asks to be left alone for {self.retry_after:g} s"
        return f" (HTTP {self.status}{asks})"


# The session sends every request in the context of whoever makes it, and hides its response's headers.
_refusal: ContextVar[Refusal | None] = ContextVar("refusal", default=None)


@contextmanager
def noting_refusal() -> Iterator[Refusal]:
    """What is asked of a server within, if it is refused."""
    refusal = Refusal()
    token = _refusal.set(refusal)
    try:
        yield refusal
    finally:
        _refusal.reset(token)


@asynccontextmanager
async def open_transport(
    server: tool_pb2.ToolServer,
    environment: Mapping[str, str],
    hung_up: Callable[[str], None],
    stderr: "StandardError",
    limits: ProcessLimits,
) -> AsyncIterator[Streams]:
    """The streams to `server`. Calls `hung_up` with the reason when the server hangs up.

    For stdio the server is a process of its own group with only PATH, HOME, LOGNAME, SHELL, TERM, USER and its own
    `environment`; leaving ends it and all that it has started.
    """
    if server.transport == tool_pb2.TOOL_TRANSPORT_STDIO:
        async with _stdio(server, environment, hung_up, stderr, limits) as streams:
            yield streams
    else:
        pace = Pace()
        async with _http(server, pace) as (read, write):
            yield _Watched(read, hung_up, pace), write


@asynccontextmanager
async def _stdio(
    server: tool_pb2.ToolServer,
    environment: Mapping[str, str],
    hung_up: Callable[[str], None],
    stderr: "StandardError",
    limits: ProcessLimits,
) -> AsyncIterator[Streams]:
    command = list(server.command)
    async with stderr.pipe() as write_end, open_stdio(command, environment, write_end, limits, hung_up) as streams:
        # The server has its own copy; ours would keep the pipe open after it.
        write_end.close()
        yield streams


@asynccontextmanager
async def _http(server: tool_pb2.ToolServer, pace: Pace) -> AsyncIterator[Streams]:
    async def expect_answer(request: httpx2.Request) -> None:
        pace.expect_answer()

    async with (
        httpx2.AsyncClient(
            timeout=httpx2.Timeout(_CONNECT_SECONDS, read=_READ_SECONDS),
            # A small answer must not become a large one.
            headers={"accept-encoding": "identity"},
            event_hooks={"request": [expect_answer, _leave_in_time], "response": [_note_refusal, _bound]},
        ) as client,
        streamable_http_client(server.url, http_client=client, max_sse_event_size=MAX_MESSAGE_BYTES) as streams,
    ):
        yield streams


async def _leave_in_time(request: httpx2.Request) -> None:
    if request.method == "DELETE":
        request.extensions["timeout"] = httpx2.Timeout(_LEAVE_SECONDS).as_dict()


async def _bound(response: httpx2.Response) -> None:
    """Keeps an answer from being read into memory without end. Events are bounded where they are read."""
    encoded = response.headers.get("content-encoding", "identity") != "identity"
    if encoded or not response.headers.get("content-type", "").startswith("text/event-stream"):
        response.stream = _Bounded(response.stream, 0 if encoded else MAX_MESSAGE_BYTES)


async def _note_refusal(response: httpx2.Response) -> None:
    refusal = _refusal.get()
    if refusal is not None and response.status_code in _REFUSALS:
        refusal.status = response.status_code
        refusal.retry_after = retry_after.from_headers(response.headers, datetime.now(UTC))


class _TooLarge(httpx2.StreamError):
    """What the client takes for an answer that cannot be read."""


class _Bounded(httpx2.AsyncByteStream):
    """The body of a response, up to a number of bytes."""

    def __init__(self, stream: Any, most: int) -> None:
        self._stream = stream
        self._most = most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._stream:
            size += len(chunk)
            if size > self._most:
                raise _TooLarge(f"it has more than {self._most} bytes" if self._most else "it is compressed")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


class StandardError(asyncio.Protocol):
    """Takes what a server writes to its standard error: as debug log lines, never raw to the console.

    Keeps the last lines for the log of a server that does not even start; before a server has been called it
    cannot have written down what it was called with.
    """

    def __init__(self, server: str, clean: Callable[[str], str] = str) -> None:
        """`clean` takes secrets out of a line."""
        self._server = server
        self._clean = clean
        self._rest = b""
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._allowance = Allowance(_STDERR_AT_ONCE, _STDERR_PER_SECOND)
        self._transport: Any = None

    @property
    def tail(self) -> list[str]:
        return list(self._tail)

    @asynccontextmanager
    async def pipe(self) -> AsyncIterator[Any]:
        """A file for the server to write to."""
        read_fd, write_fd = os.pipe()
        with os.fdopen(write_fd, "w") as write_end, os.fdopen(read_fd, "rb", 0) as read_end:
            transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: self, read_end)
            try:
                yield write_end
            finally:
                transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if seconds := self._allowance.spend(len(data)):
            self._rest_for(seconds)
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[:_LINE_BYTES]
        for line in lines:
            text = self._clean(line.decode(errors="replace").rstrip())[:_LINE_CHARACTERS]
            self._tail.append(text)
            _log.debug("tool_server_stderr", extra={"server": self._server, "line": text})

    def _rest_for(self, seconds: float) -> None:
        self._transport.pause_reading()
        asyncio.get_running_loop().call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()


class _Watched:
    """A read stream that tells when it ends, and is not read faster than agreed."""

    def __init__(self, stream: Any, hung_up: Callable[[str], None], pace: Pace) -> None:
        self._stream = stream
        self._hung_up = hung_up
        self._pace = pace

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def receive(self) -> Any:
        return await self._stream.receive()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        try:
            item = await self._stream.__anext__()
        except StopAsyncIteration:
            self._hung_up("it hung up")
            raise
        await self._pace.take()
        return item

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *exception: Any) -> bool | None:
        closed: bool | None = await self._stream.__aexit__(*exception)
        return closed
