"""The concerns that every method shares.

Around each method, from outside in: errors, telemetry, deadline, authentication, validation. So telemetry sees
the typed error and only the outermost concern ends the call with a status.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
from baton.api.v1 import annotations_pb2
from google.protobuf.message import Message
from grpc.aio import AbortError, ServicerContext
from opentelemetry.trace import SpanKind, Status, StatusCode

from services.chassis import call, telemetry, validation
from services.chassis.auth import Verifier, invalid_token
from services.chassis.call import Call, Caller
from services.chassis.errors import DeadlineExceeded, Internal, PermissionDenied, ServiceError, Unauthenticated
from services.chassis.policy import HEALTH_PREFIX, Policies
from services.chassis.status import DETAILS_KEY, grpc_code, to_status

_log = logging.getLogger(__name__)
DEFAULT_TIMEOUT_SECONDS = 30.0
REPLAYED_KEY = "idempotent-replayed"
_BEARER = "Bearer "
# grpc types handlers by their messages; which those are does not matter to any concern.
_Handler = Any
_Context = ServicerContext[Any, Any]


class Concerns(grpc.aio.ServerInterceptor):
    """Wraps each method once, when it is first called."""

    def __init__(self, policies: Policies, verifier: Verifier) -> None:
        self._policies = policies
        self._verifier = verifier
        self._wrapped: dict[str, _Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]],
        details: grpc.HandlerCallDetails,
    ) -> _Handler:
        method = details.method
        handler = self._wrapped.get(method)
        if handler is None:
            inner = await continuation(details)
            if inner is None or method.startswith(HEALTH_PREFIX):
                return inner
            handler = self._wrapped[method] = self._wrap(method, inner)
        return handler

    def _wrap(self, method: str, inner: _Handler) -> _Handler:
        async def serve_unary(request: Message, context: _Context) -> Any:
            async with self._around(method, request, context):
                return await inner.unary_unary(request, context)

        async def serve_stream(request: Message, context: _Context) -> AsyncIterator[Any]:
            async with self._around(method, request, context):
                async for message in inner.unary_stream(request, context):
                    yield message

        serializers = (inner.request_deserializer, inner.response_serializer)
        if inner.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(serve_unary, *serializers)
        assert inner.unary_stream is not None, f"{method}: streaming requests are not supported"
        return grpc.unary_stream_rpc_method_handler(serve_stream, *serializers)

    @asynccontextmanager
    async def _around(self, method: str, request: Message, context: _Context) -> AsyncIterator[None]:
        metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        serving = Call(method)
        token = call.current.set(serving)
        try:
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(_errors(context))
                await stack.enter_async_context(_telemetry(serving, metadata))
                await stack.enter_async_context(_deadline(serving, context))
                serving.caller = self._authenticate(method, metadata)
                validation.check(request)
                yield
                if serving.replayed:
                    context.set_trailing_metadata(((REPLAYED_KEY, "true"),))
        finally:
            call.current.reset(token)

    def _authenticate(self, method: str, metadata: Mapping[str, str]) -> Caller | None:
        policy = self._policies.get(method)
        if policy is None:
            raise PermissionDenied("this method is not open to anybody", reason="METHOD_NOT_OPEN")
        if policy.access == annotations_pb2.ACCESS_CREDENTIAL_IN_REQUEST:
            return None
        authorization = metadata.get("authorization", "")
        if not authorization:
            raise Unauthenticated("no token was sent: send 'Authorization: Bearer <token>'", reason="TOKEN_MISSING")
        if not authorization.startswith(_BEARER):
            raise invalid_token()
        caller = self._verifier.verify(authorization.removeprefix(_BEARER))
        if policy.scope and not caller.holds(policy.scope):
            raise PermissionDenied(
                f"this needs the scope {policy.scope!r}, which the token does not hold",
                reason="SCOPE_MISSING",
                metadata={"scope": policy.scope},
            )
        return caller


@asynccontextmanager
async def _errors(context: _Context) -> AsyncIterator[None]:
    """Ends a failed call with the status and details of its error; the cause of a fault of ours goes to the log."""
    try:
        yield
    except AbortError:
        raise
    except Exception as error:
        known = error if isinstance(error, ServiceError) else Internal("internal error")
        if isinstance(known, Internal):
            _log.error("call_failed", exc_info=error)
            known = Internal("internal error")
        details = to_status(known).SerializeToString()
        await context.abort(grpc_code(known.code), known.message, ((DETAILS_KEY, details),))


@asynccontextmanager
async def _telemetry(serving: Call, metadata: Mapping[str, str]) -> AsyncIterator[None]:
    """One SERVER span that continues the caller's trace and says how the call ended."""
    name = serving.method.lstrip("/")
    with telemetry.tracer().start_as_current_span(
        name,
        context=telemetry.remote_context(metadata),
        kind=SpanKind.SERVER,
        attributes={telemetry.RPC_SYSTEM: "grpc", telemetry.RPC_METHOD: name},
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield
            span.set_attribute(telemetry.RPC_STATUS, "OK")
        except Exception as error:
            known = error if isinstance(error, ServiceError) else Internal("internal error")
            span.set_attribute(telemetry.RPC_STATUS, known.code.name)
            span.set_attribute(telemetry.ERROR_TYPE, type(error).__name__)
            span.set_attribute(telemetry.ERROR_REASON, known.reason)
            if isinstance(known, Internal):
                span.set_status(Status(StatusCode.ERROR))
            raise
        finally:
            if serving.caller is not None:
                span.set_attribute(telemetry.CALLER, serving.caller.agent_id)


@asynccontextmanager
async def _deadline(serving: Call, context: _Context) -> AsyncIterator[None]:
    """Ends the call when the caller's deadline has passed, 30 s when it set none."""
    remaining = context.time_remaining()
    seconds = DEFAULT_TIMEOUT_SECONDS if remaining is None else remaining
    serving.expires_at = time.monotonic() + seconds
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise DeadlineExceeded("the call did not end in the time that its caller gave") from None
