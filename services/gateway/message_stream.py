"""Answers that are made of messages while these come."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from google.protobuf.message import Message
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class MessageStream(StreamingResponse):
    """What `text` makes of `messages`, no faster than the client takes it, until it leaves."""

    def __init__(
        self, messages: AsyncGenerator[Message | None, None], text: AsyncGenerator[bytes, None], media_type: str
    ) -> None:
        self._messages, self._text = messages, text
        super().__init__(text, headers=_HEADERS, media_type=media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Closed whatever happens, so that a client that leaves ends the work behind as well.
        async with aclosing(self._messages), aclosing(self._text):
            await super().__call__(scope, receive, send)
