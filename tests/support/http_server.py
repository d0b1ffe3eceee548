"""An HTTP server that says what it is told to say, byte for byte, and remembers what it was asked."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

Speaking = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Asked:
    """A request as it arrived."""

    method: str
    target: str
    headers: dict[str, str]
    """By their names in lower case."""
    body: bytes
    server_name: str | None = None
    """The name that the client asked for before TLS began."""


def said(status: int = 200, body: bytes = b"", **headers: str) -> bytes:
    """An answer with its length, after which the connection ends. `content_type` is `Content-Type`."""
    lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class HttpServer:
    """Answers each path with the bytes, or by the function, that `answers` has for it."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes | Speaking] = {}
        self.asked: list[Asked] = []
        self.port = 0
        self.connections = 0
        self._handlers: set[asyncio.Task[None]] = set()
        self._server_names: dict[ssl.SSLObject, str | None] = {}

    @property
    def open(self) -> int:
        """Connections that nobody has closed."""
        return len(self._handlers)

    @asynccontextmanager
    async def serving(self, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> AsyncIterator["HttpServer"]:
        if tls:
            tls.sni_callback = lambda connection, name, _: self._server_names.update({connection: name})  # type: ignore[assignment]
        server = await asyncio.start_server(self._handle, host, 0, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for handler in self._handlers:
                handler.cancel()
            await asyncio.gather(*self._handlers, return_exceptions=True)

    def url(self, path: str, host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        self.connections += 1
        try:
            await self._answer(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client has gone
        finally:
            self._handlers.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        name = self._server_names.get(writer.get_extra_info("ssl_object"))
        self.asked.append(Asked(method, target, headers, body, name))
        answer = self.answers.get(urlsplit(target).path, said(404))
        if isinstance(answer, bytes):
            writer.write(answer)
            await writer.drain()
        else:
            await answer(writer)


def falls_silent_after(beginning: bytes) -> Speaking:
    """Says this, and then nothing for ever."""

    async def speak(writer: asyncio.StreamWriter) -> None:
        writer.write(beginning)
        await writer.drain()
        await asyncio.Event().wait()

    return speak


def trickles(beginning: bytes, piece: bytes) -> Speaking:
    """Says this, and then one more piece again and again for ever."""

    async def speak(writer: asyncio.StreamWriter) -> None:
        writer.write(beginning)
        while True:
            await writer.drain()
            await asyncio.sleep(0.01)
            writer.write(piece)

    return speak


def gushes(beginning: bytes, piece: bytes) -> Speaking:
    """The same, as fast as it is read."""

    async def speak(writer: asyncio.StreamWriter) -> None:
        writer.write(beginning)
        while True:
            await writer.drain()
            writer.write(piece)
            await asyncio.sleep(0)

    return speak
