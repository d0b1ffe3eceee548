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
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from services.chassis import retry_after

_CONNECT_SECONDS = 10.0
# Longer than any call may take: calls are ended by their own timeout.
_READ_SECONDS = 3700.0
_REFUSALS = (httpx2.codes.TOO_MANY_REQUESTS, httpx2.codes.SERVICE_UNAVAILABLE)
_TAIL_LINES = 20
_LINE_CHARACTERS = 500
# Of a line that has not ended so much is kept that a secret which begins in what is logged is there to its end.
_LINE_BYTES = 256 * 1024
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
    server: tool_pb2.ToolServer, environment: Mapping[str, str], ended: asyncio.Event, stderr: "StandardError"
) -> AsyncIterator[Streams]:
    """The streams to `server`. Sets `ended` when the server hangs up.

    For stdio the server is a process of its own group with only PATH, HOME, LOGNAME, SHELL, TERM, USER and its own
    `environment`; leaving closes its stdin, and kills the group when it does not go by itself.
    """
    stdio = server.transport == tool_pb2.TOOL_TRANSPORT_STDIO
    transport = _stdio(server, environment, stderr) if stdio else _http(server)
    async with transport as (read, write):
        yield _Watched(read, ended), write


@asynccontextmanager
async def _stdio(
    server: tool_pb2.ToolServer, environment: Mapping[str, str], stderr: "StandardError"
) -> AsyncIterator[Streams]:
    parameters = StdioServerParameters(
        command=server.command[0],
        args=list(server.command[1:]),
        env=dict(environment),
        encoding_error_handler="replace",
    )
    async with stderr.pipe() as write_end, stdio_client(parameters, errlog=write_end) as streams:
        # The server has its own copy; ours would keep the pipe open after it.
        write_end.close()
        yield streams


@asynccontextmanager
async def _http(server: tool_pb2.ToolServer) -> AsyncIterator[Streams]:
    timeout = httpx2.Timeout(_CONNECT_SECONDS, read=_READ_SECONDS)
    async with (
        httpx2.AsyncClient(timeout=timeout, event_hooks={"response": [_note_refusal]}) as client,
        streamable_http_client(server.url, http_client=client) as streams,
    ):
        yield streams


async def _note_refusal(response: httpx2.Response) -> None:
    refusal = _refusal.get()
    if refusal is not None and response.status_code in _REFUSALS:
        refusal.status = response.status_code
        refusal.retry_after = retry_after.from_headers(response.headers, datetime.now(UTC))


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

    def data_received(self, data: bytes) -> None:
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[:_LINE_BYTES]
        for line in lines:
            text = self._clean(line.decode(errors="replace").rstrip())[:_LINE_CHARACTERS]
            self._tail.append(text)
            _log.debug("tool_server_stderr", extra={"server": self._server, "line": text})


class _Watched:
    """A read stream that tells when it ends."""

    def __init__(self, stream: Any, ended: asyncio.Event) -> None:
        self._stream = stream
        self._ended = ended

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def receive(self) -> Any:
        return await self._stream.receive()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self._stream.__anext__()
        except StopAsyncIteration:
            self._ended.set()
            raise

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *exception: Any) -> bool | None:
        closed: bool | None = await self._stream.__aexit__(*exception)
        return closed
