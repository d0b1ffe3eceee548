"""The HTTP server around the application, and how it stops."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from starlette.types import ASGIApp, Receive, Scope, Send

from services.gateway.listening import SocketServer, listen

# After the last request: what is left then are connections on which nobody asked for anything.
_LAST_BYTES_SECONDS = 0.5
# For a whole head, from the first moment or since the answer before on.
_HEADER_TIMEOUT_MS = 10_000
# Who takes nothing of its answer for so long is not there any more, or means to keep us busy.
STALL_SECONDS = 60.0
# What is kept of one connection at most: of headers twice what the edge takes, so that it can say what is wrong.
_BUFFER_BYTES = 64 * 1024
_BACKLOG = 1024
# Those that wait for requests among them. The edge turns away what is too much, with an answer.
_CONNECTIONS = 4096
_log = logging.getLogger(__name__)


_STOPPING = "baton.stopping"


def stopping_of(scope: Scope) -> asyncio.Event:
    """What is set when the server that serves a request is to stop: answers without an end must end then."""
    stopping: asyncio.Event = scope.setdefault(_STOPPING, asyncio.Event())
    return stopping


class InFlight:
    """An ASGI application that knows which requests it is busy with."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._tasks: set[asyncio.Task[object]] = set()
        self._stopping = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        scope[_STOPPING] = self._stopping
        try:
            await self._app(scope, receive, send)
        finally:
            self._tasks.discard(task)

    async def finish(self, grace_seconds: float) -> None:
        """Waits for the requests in progress, and after `grace_seconds` breaks them off."""
        self._stopping.set()
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=grace_seconds)
        if late:
            _log.warning("requests_broken_off", extra={"count": len(late)})
        for task in late:
            task.cancel()


async def serve(
    app: ASGIApp,
    host: str,
    port: int,
    *,
    until: Callable[[], Coroutine[Any, Any, object]],
    grace_seconds: float,
    shares_port: bool = False,
) -> None:
    """Serves HTTP/1.1 until `until` returns, then takes no new requests and finishes those in progress.

    Those that take longer than `grace_seconds` are broken off. With `shares_port` the system shares new connections
    out to all who listen there. Raises OSError when it cannot listen.
    """
    stopping = asyncio.create_task(until())
    # It hears of being told to from before anybody can reach it.
    await asyncio.sleep(0)
    listening = listen(host, port, backlog=_BACKLOG, stall_seconds=STALL_SECONDS, shares_port=shares_port)
    busy = InFlight(app)
    # Embedded: one process, on our loop, with our signals and no output of its own.
    server = SocketServer(
        busy,
        listening,
        interface=Interfaces.ASGINL,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=_HEADER_TIMEOUT_MS, max_buffer_size=_BUFFER_BYTES),
        websockets=False,
        backlog=_BACKLOG,
        backpressure=_CONNECTIONS,
        log_enabled=False,
    )
    server.on_startup(lambda: _log.info("serving", extra={"address": f"{host}:{port}"}))
    serving = asyncio.create_task(server.serve())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if serving.done():
        # It stops only when told to, so it failed: this raises why.
        await serving
    server.stop()  # type: ignore[no-untyped-call]
    await busy.finish(grace_seconds)
    # Left to itself the server would wait for connections that never sent a whole request until they time out.
    await asyncio.wait({serving}, timeout=_LAST_BYTES_SECONDS)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    _log.info("stopped")
