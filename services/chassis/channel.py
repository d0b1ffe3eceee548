"""Calls to other services: traced, with a deadline, under the caller's own name, failing with our errors."""

import math
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from typing import Any

import grpc
from grpc.aio import AioRpcError, Channel, ClientCallDetails, Metadata
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, use_span

from services.chassis import call, telemetry
from services.chassis.auth import AccessTokens
from services.chassis.errors import ServiceError
from services.chassis.status import from_rpc_error

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
# A restarted server is found again within about a second; a silent peer is noticed after 15. The "minimum" is how
# long a connection may take to be made at least, whatever its name says: a server that has much to do at the moment
# greets late, and is not one that cannot be reached.
CHANNEL_OPTIONS = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
]


def open_channel(address: str, *, access_tokens: AccessTokens | None = None, default_timeout: float = 10.0) -> Channel:
    """A channel to `address` for the generated stubs.

    Every call continues the current trace, ends at the current call's deadline at the latest, carries an access
    token when there are `access_tokens` and it has none of its own, and raises ServiceError subclasses. A call that
    answers one message also ends after `default_timeout` seconds, unless it is made with a timeout of its own. A
    stream may last: who stops reading one cancels it.
    """
    outgoing = _Outgoing(access_tokens)
    interceptors = [_Unary(outgoing, default_timeout), _Stream(outgoing)]
    return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS, interceptors=interceptors)


class _Outgoing:
    """What is added to every outgoing call."""

    def __init__(self, access_tokens: AccessTokens | None) -> None:
        self._access_tokens = access_tokens

    async def details(self, details: ClientCallDetails, span: Span, default_timeout: float) -> ClientCallDetails:
        metadata = Metadata(*(details.metadata or ()))
        if traceparent := telemetry.traceparent(span):
            metadata.add("traceparent", traceparent)
        if self._access_tokens is not None and metadata.get("authorization") is None:
            with use_span(span, record_exception=False, set_status_on_exception=False):
                metadata.add("authorization", f"Bearer {await self._access_tokens.current()}")
        seconds = call.seconds_left(default_timeout if details.timeout is None else details.timeout)
        return ClientCallDetails(
            method=details.method,
            timeout=None if seconds == math.inf else seconds,
            metadata=metadata,
            credentials=details.credentials,
            wait_for_ready=details.wait_for_ready,
        )


class _Unary(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, outgoing: _Outgoing, default_timeout: float) -> None:
        self._outgoing = outgoing
        self._default_timeout = default_timeout

    async def intercept_unary_unary(
        self, continuation: Callable[[ClientCallDetails, Any], Any], details: ClientCallDetails, request: Any
    ) -> Any:
        with client_span(_path(details)) as span:
            running = await continuation(await self._outgoing.details(details, span, self._default_timeout), request)
            await running
            return running


class _Stream(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, outgoing: _Outgoing) -> None:
        self._outgoing = outgoing

    async def intercept_unary_stream(
        self, continuation: Callable[[ClientCallDetails, Any], Any], details: ClientCallDetails, request: Any
    ) -> AsyncIterator[Any]:
        with ExitStack() as until_the_end:
            span = until_the_end.enter_context(client_span(_path(details)))
            running = await continuation(await self._outgoing.details(details, span, math.inf), request)
            return _messages(running, until_the_end.pop_all())


async def _messages(running: Any, until_the_end: ExitStack) -> AsyncIterator[Any]:
    with until_the_end:
        async for message in running:
            yield message


class client_span:  # noqa: N801 - used like a function
    """A CLIENT span around one call, whose failure it raises as one of our errors.

    It is never made the current one for long: a stream may be read by several tasks, and a context can only be
    left by the one that entered it.
    """

    def __init__(self, path: str) -> None:
        name = path.lstrip("/")
        self._span = telemetry.tracer().start_span(
            name, kind=SpanKind.CLIENT, attributes={telemetry.RPC_SYSTEM: "grpc", telemetry.RPC_METHOD: name}
        )

    def __enter__(self) -> Span:
        return self._span

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        try:
            if error is None:
                self._span.set_attribute(telemetry.RPC_STATUS, "OK")
            elif isinstance(error, AioRpcError):
                raise _failed(self._span, from_rpc_error(error)) from None
            elif isinstance(error, ServiceError):
                _failed(self._span, error)
        finally:
            self._span.end()


def _path(details: ClientCallDetails) -> str:
    return details.method.decode() if isinstance(details.method, bytes) else details.method


def _failed(span: Span, error: ServiceError) -> ServiceError:
    span.set_attribute(telemetry.RPC_STATUS, error.code.name)
    span.set_attribute(telemetry.ERROR_REASON, error.reason)
    span.set_status(Status(StatusCode.ERROR))
    return error
