"""Connects to the address that was judged, and to no other."""

import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import cached_property
from typing import Any

import httpx2

from services.chassis.egress import urls
from services.chassis.egress.addresses import Address
from services.chassis.egress.guard import Guard

# For each address; whoever makes the request also limits the whole.
_CONNECT_SECONDS = 5.0
_TIMEOUT = httpx2.Timeout(None, connect=_CONNECT_SECONDS).as_dict()


class EgressTransport(httpx2.AsyncBaseTransport):
    """Sends each request over a connection of its own, so that none goes where another one's host was judged.

    The name is resolved once, all its addresses are judged, and they are tried in their order. `Host` and the name in
    the server's certificate are the URL's. No proxy is used, whatever the environment says.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        # To read the certificates that are trusted takes 20 ms, and many a process never needs them.
        return httpx2.create_ssl_context()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Raises AddressRefused and NotReached before anything is sent, else what httpx2 raises."""
        url = urls.read(str(request.url))
        *others, last = await self._guard.addresses(url)
        for address in others:
            try:
                return await self._send(request, url, address)
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                continue
        return await self._send(request, url, last)

    async def _send(self, request: httpx2.Request, url: httpx2.URL, address: Address) -> httpx2.Response:
        async with AsyncExitStack() as connection:
            # A transport for one request: a kept connection has shown the certificate of one name only.
            transport = httpx2.AsyncHTTPTransport(verify=self._tls, trust_env=False)
            connection.push_async_callback(transport.aclose)
            pinned = _pinned(request, url, address)
            pinned.extensions["trace"] = _closing_what_connects(connection)
            response = await transport.handle_async_request(pinned)
            assert isinstance(response.stream, httpx2.AsyncByteStream)
            connection.push_async_callback(response.stream.aclose)
            return httpx2.Response(
                response.status_code,
                headers=response.headers,
                stream=_Stream(response.stream, connection.pop_all()),
                extensions=response.extensions,
            )
        raise AssertionError  # nothing above is swallowed


def _pinned(request: httpx2.Request, url: httpx2.URL, address: Address) -> httpx2.Request:
    """The request with the address instead of the name, but for what the server sees of it."""
    host = f"[{address}]" if address.version == 6 else str(address)
    headers = request.headers.copy()
    headers["host"] = url.netloc.decode("ascii")
    extensions = {**request.extensions, "sni_hostname": urls.host_of(url), "timeout": _TIMEOUT}
    return httpx2.Request(
        request.method, url.copy_with(host=host), headers=headers, stream=request.stream, extensions=extensions
    )


def _closing_what_connects(connection: AsyncExitStack) -> Any:
    """A hook that hears of a new connection: one that is canceled in the middle of TLS would stay open for ever."""

    async def trace(event: str, info: dict[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            connection.push_async_callback(info["return_value"].aclose)

    return trace


class _Stream(httpx2.AsyncByteStream):
    """A body whose end is the end of its connection."""

    def __init__(self, body: httpx2.AsyncByteStream, connection: AsyncExitStack) -> None:
        self._body = body
        self._connection = connection

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._body.__aiter__()

    async def aclose(self) -> None:
        await self._connection.aclose()
