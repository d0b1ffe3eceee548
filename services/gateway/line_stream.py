"""Messages as NDJSON: each is one line of JSON."""

import re
from collections.abc import AsyncGenerator, AsyncIterator

import orjson
from google.protobuf.message import Message
from starlette.requests import Request

from services.chassis.errors import Unavailable
from services.gateway import event_stream
from services.gateway.message_stream import MessageStream
from services.gateway.server import stopping_of
from services.gateway.transcode.printer import Print

MEDIA_TYPE = "application/x-ndjson"
_QUALITY = re.compile(r"q=([01](?:\.\d{0,3})?)", re.ASCII)


class LineStream(MessageStream):
    """Lines as the messages come. Whatever ends them early, be it that the gateway stops, breaks the connection."""

    def __init__(
        self, request: Request, first: Message, rest: AsyncGenerator[Message | None, None], to_json: Print
    ) -> None:
        """`rest` may be None now and then, where there is nothing to tell."""
        super().__init__(rest, _lines(request, first, rest, to_json), MEDIA_TYPE)


def wants_lines(request: Request) -> bool:
    """Whether a client asks by name for NDJSON, and rather than for events."""
    accept = ",".join(request.headers.getlist("accept")).lower()
    return _quality(accept, MEDIA_TYPE) > _quality(accept, event_stream.MEDIA_TYPE)


def _quality(accept: str, media_type: str) -> float:
    """How much a client wants a type, from 0 for one that it does not name to 1."""
    for offer in accept.split(","):
        name, *parameters = (part.strip() for part in offer.split(";"))
        if name == media_type:
            return next((float(match[1]) for one in parameters if (match := _QUALITY.fullmatch(one))), 1.0)
    return 0.0


async def _lines(
    request: Request, first: Message, rest: AsyncIterator[Message | None], to_json: Print
) -> AsyncGenerator[bytes, None]:
    yield _line(to_json(first))
    async for message in rest:
        if message is not None:
            yield _line(to_json(message))
    if stopping_of(request.scope).is_set():
        # A whole answer would say that there is no more to come.
        raise Unavailable("the gateway stops")


def _line(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)
