"""A gateway that listens on a real socket."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.gateway.server import serve
from tests.support.processes import free_port
from tests.support.waiting import await_until
from tests.unit.gateway.garden import OWN_JWT, Garden


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


class Served:
    """A gateway that listens, and what stops it."""

    def __init__(self, port: int, stop: asyncio.Event, serving: "asyncio.Task[None]") -> None:
        self.port, self.stop, self.serving = port, stop, serving

    async def ask(
        self, path: str, *headers: str, token: str = OWN_JWT
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n".encode())
        writer.write("".join(f"{header}\r\n" for header in (*headers, "")).encode())
        return reader, writer

    async def stopped(self) -> float:
        """Stops it, and says how many seconds that took."""
        began = time.monotonic()
        self.stop.set()
        await self.serving
        return time.monotonic() - began


@asynccontextmanager
async def served(garden: Garden, grace_seconds: float = 5) -> AsyncIterator[Served]:
    port, stop = free_port(), asyncio.Event()
    serving = asyncio.create_task(serve(garden.app, "127.0.0.1", port, until=stop.wait, grace_seconds=grace_seconds))
    await await_until(lambda: listens(port))
    yield Served(port, stop, serving)
    stop.set()
    await serving
