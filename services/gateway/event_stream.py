"""Messages as server-sent events (HTML Living Standard, section 9.2)."""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable

import orjson
from google.protobuf.message import Message
from starlette.requests import Request

from services.chassis.errors import ServiceError
from services.gateway.message_stream import MessageStream
from services.gateway.problems import problem_response
from services.gateway.transcode.printer import Print

MEDIA_TYPE = "text/event-stream"
# So often something is sent, so that a connection that nobody needs any more is noticed, and one in use is not cut.
HEARTBEAT_SECONDS = 15.0
_HEARTBEAT = b":\n\n"
# How soon a client comes back after the stream has ended.
_RETRY = b"retry: 1000\n"
ToEvent = Callable[[Message], bytes]


def event_writer(to_json: Print, id_field: str) -> ToEvent:
    """What makes of a message an event, whose id is the value of one field."""

    def write(message: Message) -> bytes:
        return b"id: %s\ndata: %s\n\n" % (str(getattr(message, id_field)).encode(), orjson.dumps(to_json(message)))

    return write


class EventStream(MessageStream):
    """Events as they come, until the client leaves or there are no more.

    A failure midway is a last event named `problem`, with what a failed request is answered.
    """

    def __init__(
        self, request: Request, first: Message, rest: AsyncGenerator[Message | None, None], to_event: ToEvent
    ) -> None:
        """`rest` may be None now and then, where there is nothing to tell."""
        super().__init__(rest, _events(request, first, rest, to_event), MEDIA_TYPE)


async def _events(
    request: Request, first: Message, rest: AsyncIterator[Message | None], to_event: ToEvent
) -> AsyncGenerator[bytes, None]:
    yield _RETRY + to_event(first)
    sent_at = time.monotonic()
    try:
        async for message in rest:
            if message is not None or time.monotonic() - sent_at >= HEARTBEAT_SECONDS:
                yield _HEARTBEAT if message is None else to_event(message)
                sent_at = time.monotonic()
    except ServiceError as error:
        path = request.scope["raw_path"].decode("latin-1")
        problem = problem_response(error, path=path, request_id=request.scope["request_id"])
        yield b"event: problem\ndata: %s\n\n" % problem.body
