"""Answers that are made of messages while these come."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from google.protobuf.message import Message
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class MessageStream(StreamingResponse):
    """What `text` makes of `messages`, no faster than the client takes it, until it leaves."""

    def __init__(
        self, messages: AsyncGenerator[Message, None], text: AsyncGenerator[bytes, None], media_type: str
    ) -> None:
        self._messages, self._text = messages, text
        super().__init__(text, headers=_HEADERS, media_type=media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Closed whatever happens, so that a client that leaves ends the work behind as well.
        async with aclosing(self._messages), aclosing(self._text):
            await super().__call__(scope, receive, send)


async def with_pauses(
    messages: AsyncIterator[Message], stopping: asyncio.Event, pause_seconds: float | None = None
) -> AsyncGenerator[Message | None, None]:
    """The messages, and None whenever none has come for `pause_seconds`, until `stopping` is set."""
    following: asyncio.Task[Any] | None = None
    stop = asyncio.create_task(stopping.wait())
    try:
        while not stop.done():
            following = following or asyncio.create_task(_next(messages))
            await asyncio.wait({following, stop}, timeout=pause_seconds, return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                message = following.result()
                if message is None:
                    return
                following = None
                yield message
            elif not stop.done():
                yield None
    finally:
        left = {task for task in (following, stop) if task is not None}
        for task in left:
            task.cancel()
        # Its iterator can be closed only once nobody waits for it.
        await asyncio.wait(left)


async def _next(messages: AsyncIterator[Message]) -> Message | None:
    return await anext(messages, None)
