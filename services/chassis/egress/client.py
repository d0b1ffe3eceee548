"""Makes requests to addresses that other people gave."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

import httpx2

from services.chassis.egress import bodies, redirects, urls
from services.chassis.egress.errors import (
    AddressRefused,
    AnswerBroken,
    AnswerTooLarge,
    NotReached,
    TimedOut,
    TooManyRedirects,
)
from services.chassis.egress.guard import Guard
from services.chassis.egress.redirects import Hop
from services.chassis.egress.transport import EgressTransport

_DEFAULT_HEADERS = {"accept": "*/*", "user-agent": "baton"}
_OWN_HEADERS = {"accept-encoding": bodies.CODINGS, "connection": "close"}


class Answer:
    """An answer whose headers have arrived and whose body has not been read yet."""

    def __init__(self, response: httpx2.Response, url: httpx2.URL) -> None:
        self._response = response
        self.status = response.status_code
        self.headers = response.headers
        """Case does not matter; several of one name are one, joined by commas."""
        self.url = url
        """Where the answer is from, after all redirects."""

    async def read(self, at_most: int) -> bytes:
        """The whole body, unpacked. Raises AnswerTooLarge when it has more than `at_most` bytes, and AnswerBroken."""
        with _our_words():
            body, whole = await bodies.read(self._response, at_most)
        if not whole:
            raise AnswerTooLarge(f"the answer has more than {at_most} bytes")
        return body

    async def read_beginning(self, at_most: int) -> bytes:
        """Up to `at_most` bytes of the body. Raises AnswerBroken."""
        with _our_words():
            body, _ = await bodies.read(self._response, at_most)
        return body


class Egress:
    """Makes requests that reach only what a guard lets through.

    There are no cookies, no proxies and no trace headers: a server hears what the caller says, and nothing of others.
    """

    def __init__(self, guard: Guard | None = None) -> None:
        self._transport = EgressTransport(guard or Guard())

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout: float,
        follow_redirects: bool = False,
    ) -> AsyncIterator[Answer]:
        """The answer to a request; leaving the block closes the connection.

        `timeout` is in seconds and for all of it: the name's resolution, redirects, and what the block reads. At most 5
        redirects are followed, never from https to http; headers that may be secret stay with the origin that they were
        meant for. Raises AddressRefused, NotReached, AnswerBroken, TooManyRedirects and TimedOut.
        """
        given = {name.lower(): value for name, value in (headers or {}).items()}
        hop = Hop(method, urls.read(url), {**_DEFAULT_HEADERS, **given, **_OWN_HEADERS}, body)
        try:
            async with asyncio.timeout(timeout) as limit:
                with _our_words():
                    response, last = await self._answer(hop, follow_redirects)
                try:
                    yield Answer(response, last.url)
                finally:
                    await response.aclose()
        except TimeoutError:
            if not limit.expired():
                raise
            raise TimedOut(f"no answer within {timeout:g} s") from None

    async def _answer(self, hop: Hop, follow_redirects: bool) -> tuple[httpx2.Response, Hop]:
        response = await self._send(hop)
        if not follow_redirects:
            return response, hop
        try:
            return await self._follow(hop, response)
        except AddressRefused as refusal:
            raise AddressRefused(f"redirects to a URL that {refusal}") from None

    async def _follow(self, hop: Hop, response: httpx2.Response) -> tuple[httpx2.Response, Hop]:
        left = redirects.MAX_REDIRECTS
        while redirects.leads_on(response.status_code, response.headers):
            await response.aclose()
            if not left:
                raise TooManyRedirects(f"more than {redirects.MAX_REDIRECTS} redirects")
            left -= 1
            hop = redirects.next_hop(hop, response.status_code, response.headers["location"])
            response = await self._send(hop)
        return response, hop

    async def _send(self, hop: Hop) -> httpx2.Response:
        request = httpx2.Request(hop.method, hop.url, headers=dict(hop.headers), content=hop.body)
        return await self._transport.handle_async_request(request)


@contextmanager
def _our_words() -> Iterator[None]:
    try:
        yield
    except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
        raise NotReached(f"no connection: {_reason(error)}") from None
    except httpx2.TransportError as error:
        raise AnswerBroken(f"the connection broke: {_reason(error)}") from None


def _reason(error: BaseException | None) -> str:
    """What is at the bottom of it."""
    if isinstance(error, httpx2.LocalProtocolError):
        return "the request is no valid HTTP"  # its own words would show the header at fault
    reason = "timed out" if isinstance(error, httpx2.TimeoutException) else str(error)
    while error is not None:
        match error:
            case ssl.SSLCertVerificationError():
                return f"the certificate is not valid: {error.verify_message}"
            case ssl.SSLError():
                # Its number is none of the system's: as one of those it would say "operation not permitted".
                reason = f"TLS failed: {(error.reason or 'no reason given').replace('_', ' ').lower()}"
            case OSError() if error.errno:
                reason = os.strerror(error.errno).lower()  # its own words would name the address
        error = error.__cause__ or error.__context__
    return reason
