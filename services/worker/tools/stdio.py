"""MCP over the standard streams of a process that is started, limited and ended.

The MCP library has a client for this, too. It is not used, because it keeps a line of any length in memory, reads as
fast as the server can write, and leaves alone what a server has started and not ended. See docs/adr/0024.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage
from mcp.types import JSONRPCRequest, jsonrpc_message_adapter

from services.worker.limits import ProcessLimits
from services.worker.tools.pace import MAX_MESSAGE_BYTES, Pace

_LAUNCHER = str(Path(__file__).with_name("launch.py"))
_CHUNK = 64 * 1024
# Messages that wait to be written: a server that reads none must not hold up who only wants to say that it gives up.
_UNWRITTEN = 1000
_FLUSH_SECONDS = 0.5
# A server may end by itself once its input is closed; then the launcher ends it, which takes 7 s at most.
_GO_SECONDS = 2.0
_END_SECONDS = 8.0
_LOOK_SECONDS = 0.01
# How the server ended is known a moment after its output is.
_REASON_SECONDS = 1.0
_log = logging.getLogger(__name__)

Streams = tuple[MemoryObjectReceiveStream[SessionMessage | Exception], MemoryObjectSendStream[SessionMessage]]


@asynccontextmanager
async def open_stdio(
    command: Sequence[str],
    env: Mapping[str, str],
    stderr: IO[Any],
    limits: ProcessLimits,
    hung_up: Callable[[str], None],
) -> AsyncIterator[Streams]:
    """The streams to a new process of `command`, which has PATH, HOME, LOGNAME, SHELL, TERM, USER and `env`.

    Calls `hung_up` with how it came when the process ends, or can be spoken to no more. Leaving ends the process and
    all that it has started, which takes up to 10 s when they do not want to. Raises OSError when it cannot be
    started.
    """
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours:
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", _LAUNCHER),
                *map(str, (theirs.fileno(), limits.memory_bytes, limits.open_files)),
                *command,
                stdin=PIPE,
                stdout=PIPE,
                stderr=stderr,
                env={**get_default_environment(), **env},
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        session = _Session(process, ours, hung_up)
        try:
            yield session.streams
        finally:
            await session.end()


class _Session:
    """A running process, and the tasks that carry messages to and from it."""

    def __init__(self, process: Process, control: socket.socket, hung_up: Callable[[str], None]) -> None:
        self._process = process
        self._control = control
        self._hung_up = hung_up
        self._pace = Pace()
        self._received, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        write, self._to_send = anyio.create_memory_object_stream[SessionMessage](_UNWRITTEN)
        self.streams: Streams = (read, write)
        self._word = asyncio.create_task(self._last_word())
        self._reader = asyncio.create_task(self._read())
        self._writer = asyncio.create_task(self._write())

    async def end(self) -> None:
        """Ends the process and all that it has started."""
        self._hung_up = lambda why: None  # it is we who hang up
        read, write = self.streams
        read.close()
        write.close()
        await asyncio.wait([self._writer], timeout=_FLUSH_SECONDS)
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            if not await self._has_ended(_GO_SECONDS):
                # Which is what the launcher waits for.
                self._control.shutdown(socket.SHUT_RDWR)
                if not await self._has_ended(_END_SECONDS):
                    _log.error("tool_server_not_ended", extra={"pid": self._process.pid})
        finally:
            await self._clean_up()

    async def _has_ended(self, seconds: float) -> bool:
        # Not by `wait`, which also waits until all of the output is read: nobody reads it any more.
        give_up = time.monotonic() + seconds
        while self._process.returncode is None and time.monotonic() < give_up:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_SECONDS)
        return self._process.returncode is not None

    async def _clean_up(self) -> None:
        if self._process.returncode != 0:
            # The launcher did not end by itself, and so may have left something behind.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        tasks = (self._reader, self._writer, self._word)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for stream in (self._received, self._to_send):
            stream.close()
        # It stays open while anybody has the other end of a pipe, and nothing public closes it.
        self._process._transport.close()  # type: ignore[attr-defined]

    async def _read(self) -> None:
        why = "it closed its standard output"
        try:
            await self._read_messages()
        except _TooLong:
            why = f"it wrote a message of more than {MAX_MESSAGE_BYTES} bytes"
        except _Deaf:
            why = "it does not read what it is sent"
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass  # nobody listens any more
        else:
            why = await self._how_it_ended() or why
        self._hung_up(why)
        self._received.close()

    async def _read_messages(self) -> None:
        assert self._process.stdout is not None
        lines = Lines(MAX_MESSAGE_BYTES)
        while chunk := await self._process.stdout.read(_CHUNK):
            for line in lines.feed(chunk):
                if self._to_send.statistics().current_buffer_used >= _UNWRITTEN:
                    # Whatever else it asks for, its answer could only wait, too.
                    raise _Deaf
                await self._pace.take(len(line))
                message = _parsed(line)
                if message is not None:
                    await self._received.send(message)

    async def _write(self) -> None:
        assert self._process.stdin is not None
        try:
            async for message in self._to_send:
                if isinstance(message.message, JSONRPCRequest):
                    self._pace.expect_answer()
                line = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                self._process.stdin.write(line.encode(errors="replace") + b"\n")
                await self._process.stdin.drain()
        except OSError:  # the other end is closed, of which the reader may never hear
            self._hung_up(await self._how_it_ended() or "it closed its standard input")
            self._received.close()

    async def _how_it_ended(self) -> str:
        """What the launcher says of it; empty when it says nothing."""
        await asyncio.wait([self._word], timeout=_REASON_SECONDS)
        return self._word.result() if self._word.done() else ""

    async def _last_word(self) -> str:
        loop = asyncio.get_running_loop()
        said = b""
        with contextlib.suppress(OSError):
            while b"\n" not in said and (more := await loop.sock_recv(self._control, 1024)):
                said += more
        what, _, why = said.decode(errors="replace").partition("\n")[0].partition(" ")
        return {"start": why, "end": f"it ended {why}"}.get(what, "it was killed")


class _TooLong(Exception):
    pass


class _Deaf(Exception):
    pass


class Lines:
    """Cuts what comes in pieces into lines."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._rest = bytearray()

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that are complete now. Raises _TooLong when one will be longer than `longest` bytes."""
        first, *others = chunk.split(b"\n")
        self._rest += first
        if len(self._rest) > self._longest:
            raise _TooLong
        if not others:
            return []
        *lines, rest = others
        complete = [bytes(self._rest), *lines]
        self._rest = bytearray(rest)
        return complete


def _parsed(line: bytes) -> SessionMessage | None:
    """A line as a message; None when it is none, for servers print all kinds of things."""
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(_mended(line), by_name=False))
    except ValueError:
        if line.strip():
            _log.debug("tool_server_wrote_no_message", extra={"bytes": len(line)})
        return None


def _mended(line: bytes) -> bytes | str:
    """A text with a few bytes that are no UTF-8 is better than none."""
    try:
        line.decode()
    except UnicodeDecodeError:
        return line.decode(errors="replace")
    return line
