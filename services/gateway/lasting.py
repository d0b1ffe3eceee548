"""Calls that go on and on, for no longer than the token of their caller is good."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from google.protobuf.message import Message
from starlette.requests import Request

from services.chassis.auth import TokenExchange
from services.gateway.backends import StreamCall, call_metadata
from services.gateway.credentials import Credential
from services.gateway.descriptors import Method
from services.gateway.server import stopping_of

# Who has lost a right is told nothing more after 5 s, of which an exchange is believed for 4.
PACE_SECONDS = 0.75


class LastingCall:
    """A streamed call of events, which is made anew, behind the last of them, before its access token ends.

    The services let no such call outlast its access token. So a call lasts as long as the caller's own token, and what
    the caller may be told is judged anew with each access token.
    """

    def __init__(
        self, method: Method, call: StreamCall, message: Message, request: Request, exchange: TokenExchange
    ) -> None:
        self._call, self._message, self._request = call, message, request
        self._events = method.policy.event_stream
        self._credential = None if method.is_open else Credential(request, exchange)
        self._ends_at = time.monotonic() + call.timeout

    async def messages(self) -> AsyncGenerator[Message | None, None]:
        """The messages, and None whenever none has come for PACE_SECONDS, until the gateway stops.

        Raises ServiceError: Unauthenticated once the caller's token has ended.
        """
        stop = asyncio.create_task(stopping_of(self._request.scope).wait())
        try:
            while not stop.done():
                token = await self._token()
                async with aclosing(self._told(token)) as told, aclosing(_paced(told, stop)) as paced:
                    async for message in paced:
                        self._remember(message)
                        yield message
                        if self._credential and self._credential.is_to_replace(token, await self._token()):
                            break
                    else:
                        # It ends with its access token, which on a busy machine is not replaced in time, or by itself.
                        if token == await self._token():
                            return
        finally:
            stop.cancel()

    def _told(self, token: str) -> AsyncGenerator[Message, None]:
        metadata = call_metadata(self._request.scope["request_id"], token)
        return self._call(self._message, metadata, seconds=self._ends_at - time.monotonic())

    async def _token(self) -> str:
        return await self._credential.current() if self._credential else ""

    def _remember(self, message: Message | None) -> None:
        if message is not None:
            setattr(self._message, self._events.resume_field, getattr(message, self._events.id_field))


async def _paced(messages: AsyncIterator[Message], stop: asyncio.Task[Any]) -> AsyncGenerator[Message | None, None]:
    """The messages, and None whenever none has come for a while, until `stop` is done."""
    following: asyncio.Task[Message | None] | None = None
    try:
        while not stop.done():
            following = following or asyncio.create_task(_next(messages))
            await asyncio.wait({following, stop}, timeout=PACE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                message = following.result()
                if message is None:
                    return
                following = None
                yield message
            elif not stop.done():
                yield None
    finally:
        if following is not None:
            following.cancel()
            # Its iterator can be closed only once nobody waits for it.
            await asyncio.wait({following})


async def _next(messages: AsyncIterator[Message]) -> Message | None:
    return await anext(messages, None)
