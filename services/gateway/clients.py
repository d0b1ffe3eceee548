"""Clients that leave before they are answered."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.requests import ClientDisconnect, Request

# Looking costs a task, and most requests are answered before anybody could lose patience.
_A_WHILE_SECONDS = 0.1


@contextmanager
def while_connected(request: Request) -> Iterator[None]:
    """Cancels what is done within when the client leaves, and raises ClientDisconnect then.

    So a service hears that nobody waits any more, and can take back what it was about to hand out. The request's body
    must have been read.
    """
    watch = _Watch(request)
    try:
        yield
    except asyncio.CancelledError:
        if not watch.has_left:
            raise
        watch.serving.uncancel()
        raise ClientDisconnect from None
    finally:
        watch.end()


class _Watch:
    """Waits for one client to leave, once its request has taken a while."""

    def __init__(self, request: Request) -> None:
        serving = asyncio.current_task()
        assert serving is not None
        self.serving = serving
        self.has_left = False
        self._request = request
        self._looking: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(_A_WHILE_SECONDS, self._begin)

    def end(self) -> None:
        self._timer.cancel()
        if self._looking is not None:
            self._looking.cancel()

    def _begin(self) -> None:
        self._looking = asyncio.create_task(self._look())

    async def _look(self) -> None:
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
        self.has_left = True
        self.serving.cancel()
