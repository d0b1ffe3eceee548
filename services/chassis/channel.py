"""Calls to other services: traced, with a deadline, under the caller's own name, failing with our errors."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from grpc.aio import AioRpcError, Channel, ClientCallDetails, Metadata
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from services.chassis import call, telemetry
from services.chassis.auth import AccessTokens
from services.chassis.errors import ServiceError
from services.chassis.status import from_rpc_error

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
# A restarted server is found again within about a second; a silent peer is noticed after 15.
CHANNEL_OPTIONS = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
]


def open_channel(address: str, *, access_tokens: AccessTokens | None = None, default_timeout: float = 10.0) -> Channel:
    """A channel to `address` for the generated stubs.

    Every call continues the current trace, ends at the current call's deadline or after `default_timeout`
    seconds, carries an access token when there are `access_tokens`, and raises ServiceError subclasses.
    """
    concern = _Outgoing(access_tokens, default_timeout)
    return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS, interceptors=[_Unary(concern), _Stream(concern)])


class _Outgoing:
    """What is added to every outgoing call."""

    def __init__(self, access_tokens: AccessTokens | None, default_timeout: float) -> None:
        self._access_tokens = access_tokens
        self._default_timeout = default_timeout

    async def details(self, details: ClientCallDetails) -> ClientCallDetails:
        metadata = Metadata(*(details.metadata or ()))
        if traceparent := telemetry.traceparent():
            metadata.add("traceparent", traceparent)
        if self._access_tokens is not None:
            metadata.add("authorization", f"Bearer {await self._access_tokens.current()}")
        return ClientCallDetails(
            method=details.method,
            timeout=details.timeout or call.seconds_left(self._default_timeout),
            metadata=metadata,
            credentials=details.credentials,
            wait_for_ready=details.wait_for_ready,
        )


class _Unary(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, outgoing: _Outgoing) -> None:
        self._outgoing = outgoing

    async def intercept_unary_unary(
        self, continuation: Callable[[ClientCallDetails, Any], Any], details: ClientCallDetails, request: Any
    ) -> Any:
        with _client_span(details) as span:
            try:
                running = await continuation(await self._outgoing.details(details), request)
                return await running
            except AioRpcError as error:
                raise _failed(span, from_rpc_error(error)) from None


class _Stream(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, outgoing: _Outgoing) -> None:
        self._outgoing = outgoing

    async def intercept_unary_stream(
        self, continuation: Callable[[ClientCallDetails, Any], Any], details: ClientCallDetails, request: Any
    ) -> AsyncIterator[Any]:
        return self._messages(continuation, details, request)

    async def _messages(
        self, continuation: Callable[[ClientCallDetails, Any], Any], details: ClientCallDetails, request: Any
    ) -> AsyncIterator[Any]:
        with _client_span(details) as span:
            try:
                async for message in await continuation(await self._outgoing.details(details), request):
                    yield message
            except AioRpcError as error:
                raise _failed(span, from_rpc_error(error)) from None


def _client_span(details: ClientCallDetails) -> Any:
    method = details.method.decode() if isinstance(details.method, bytes) else details.method
    name = method.lstrip("/")
    return telemetry.tracer().start_as_current_span(
        name,
        kind=SpanKind.CLIENT,
        attributes={telemetry.RPC_SYSTEM: "grpc", telemetry.RPC_METHOD: name},
        record_exception=False,
        set_status_on_exception=False,
    )


def _failed(span: Span, error: ServiceError) -> ServiceError:
    span.set_attribute(telemetry.RPC_STATUS, error.code.name)
    span.set_attribute(telemetry.ERROR_REASON, error.reason)
    span.set_status(Status(StatusCode.ERROR))
    return error
