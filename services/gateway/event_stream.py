"""Messages as server-sent events (HTML Living Standard, section 9.2)."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import orjson
from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from services.chassis.errors import ServiceError
from services.gateway.problems import problem_response
from services.gateway.server import stopping_of
from services.gateway.transcode.printer import Print

MEDIA_TYPE = "text/event-stream"
# So often something is sent, so that a connection that nobody needs any more is noticed, and one in use is not cut.
HEARTBEAT_SECONDS = 15.0
_HEARTBEAT = b":\n\n"
# How soon a client comes back after the stream has ended.
_RETRY = b"retry: 1000\n"
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
ToEvent = Callable[[Message], bytes]


def event_writer(to_json: Print, id_field: str) -> ToEvent:
    """What makes of a message an event, whose id is the value of one field."""

    def write(message: Message) -> bytes:
        return b"id: %s\ndata: %s\n\n" % (str(getattr(message, id_field)).encode(), orjson.dumps(to_json(message)))

    return write


class EventStream(StreamingResponse):
    """Events as they come, no faster than the client takes them, until it leaves or the gateway stops.

    A failure midway is a last event named `problem`, with what a failed request is answered.
    """

    def __init__(
        self, request: Request, first: Message, rest: AsyncGenerator[Message, None], to_event: ToEvent
    ) -> None:
        self._messages = rest
        self._events = _events(request, first, rest, to_event)
        super().__init__(self._events, headers=_HEADERS, media_type=MEDIA_TYPE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Closed whatever happens, so that a client that leaves ends the work behind as well.
        async with aclosing(self._messages), aclosing(self._events):
            await super().__call__(scope, receive, send)


async def _events(
    request: Request, first: Message, rest: AsyncGenerator[Message, None], to_event: ToEvent
) -> AsyncGenerator[bytes, None]:
    yield _RETRY + to_event(first)
    try:
        async with aclosing(_with_pauses(rest, stopping_of(request.scope))) as messages:
            async for message in messages:
                yield _HEARTBEAT if message is None else to_event(message)
    except ServiceError as error:
        path = request.scope["raw_path"].decode("latin-1")
        problem = problem_response(error, path=path, request_id=request.scope["request_id"])
        yield b"event: problem\ndata: %s\n\n" % problem.body


async def _with_pauses(
    messages: AsyncIterator[Message], stopping: asyncio.Event
) -> AsyncGenerator[Message | None, None]:
    """The messages, and None whenever none has come for a while, until `stopping` is set."""
    following: asyncio.Task[Any] | None = None
    stop = asyncio.create_task(stopping.wait())
    try:
        while not stop.done():
            following = following or asyncio.create_task(_next(messages))
            await asyncio.wait({following, stop}, timeout=HEARTBEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
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
