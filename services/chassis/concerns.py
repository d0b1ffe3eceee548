"""The concerns that every method shares.

Around each method, from outside in: errors, telemetry, deadline, authentication, validation. So telemetry sees
the typed error and only the outermost concern ends the call with a status.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any

import grpc
from baton.api.v1 import annotations_pb2
from google.protobuf.message import DecodeError, Message
from grpc.aio import AbortError, BaseError, ServicerContext
from opentelemetry.trace import SpanKind, Status, StatusCode

from services import metric_names
from services.chassis import call, telemetry, validation
from services.chassis.auth import Verifier, invalid_token
from services.chassis.call import Call
from services.chassis.errors import (
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    PermissionDenied,
    ScopeMissing,
    ServiceError,
    Unauthenticated,
)
from services.chassis.policy import HEALTH_PREFIX, Policies
from services.chassis.status import DETAILS_KEY, grpc_code, to_status

_log = logging.getLogger(__name__)
# For calls that answer one message. A stream, which may be a download of minutes, lasts as long as its caller.
DEFAULT_TIMEOUT_SECONDS = 30.0
REPLAYED_KEY = "idempotent-replayed"
_BEARER = "Bearer "
_NO_CREDENTIAL = frozenset({annotations_pb2.ACCESS_CREDENTIAL_IN_REQUEST, annotations_pb2.ACCESS_PUBLIC})
# grpc types handlers by their messages; which those are does not matter to any concern.
_Handler = Any
_Context = ServicerContext[Any, Any]
_Answer = Callable[[], Awaitable[Any]]


class Concerns(grpc.aio.ServerInterceptor):
    """Wraps each method once, when it is first called."""

    def __init__(self, policies: Policies, verifier: Verifier) -> None:
        self._policies = policies
        self._verifier = verifier
        self._wrapped: dict[str, _Handler] = {}
        meter = telemetry.meter()
        self._calls = meter.create_counter(metric_names.CALLS, description="calls served, by method and code")
        self._duration = meter.create_histogram(
            metric_names.CALL_DURATION, unit="s", description="how long calls that answer one message took, by method"
        )

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
        async def serve_unary(raw: bytes, context: _Context) -> Any:
            async def answer() -> Any:
                return await inner.unary_unary(_request(inner, raw), context)

            return await self._serve(method, context, DEFAULT_TIMEOUT_SECONDS, answer)

        async def serve_stream(raw: bytes, context: _Context) -> None:
            # Written, not yielded: grpc leaves the generator of a cancelled call to be closed in another task.
            async def answer() -> None:
                async with aclosing(inner.unary_stream(_request(inner, raw), context)) as messages:
                    async for message in messages:
                        await _write(context, message)

            await self._serve(method, context, None, answer)

        if inner.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(serve_unary, None, inner.response_serializer)
        assert inner.unary_stream is not None, f"{method}: streaming requests are not supported"
        return grpc.unary_stream_rpc_method_handler(serve_stream, None, inner.response_serializer)

    async def _serve(self, method: str, context: _Context, default_timeout: float | None, answer: _Answer) -> Any:
        """Ends a failed call with the status and details of its error."""
        policy = self._policies.get(method)
        serving = Call(method, audit_action=policy.audit_action if policy else "")
        token = call.current.set(serving)
        try:
            return await self._traced(serving, context, default_timeout, answer)
        except AbortError:
            raise
        except Exception as error:
            told = _told(error)
            status = to_status(told)
            await context.abort(grpc_code(told.code), status.message, ((DETAILS_KEY, status.SerializeToString()),))
        finally:
            call.current.reset(token)

    async def _traced(self, serving: Call, context: _Context, default_timeout: float | None, answer: _Answer) -> Any:
        """Answers within one SERVER span that continues the caller's trace and says how the call ended.

        The cause of a fault of ours is logged here, where the log line bears the trace's id.
        """
        name, began, code = serving.method.lstrip("/"), time.perf_counter(), "CANCELLED"
        metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        with telemetry.tracer().start_as_current_span(
            name,
            context=telemetry.remote_context(metadata),
            kind=SpanKind.SERVER,
            attributes={telemetry.RPC_SYSTEM: "grpc", telemetry.RPC_METHOD: name},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                answered = await self._in_time(serving, context, default_timeout, metadata, answer)
                code = "OK"
                span.set_attribute(telemetry.RPC_STATUS, code)
                return answered
            except asyncio.CancelledError:
                span.set_attribute(telemetry.RPC_STATUS, "CANCELLED")
                raise
            except Exception as error:
                told = _told(error)
                code = told.code.name
                span.set_attribute(telemetry.RPC_STATUS, code)
                span.set_attribute(telemetry.ERROR_TYPE, type(error).__name__)
                span.set_attribute(telemetry.ERROR_REASON, told.reason)
                if isinstance(told, Internal):
                    _log.error("call_failed", exc_info=error, extra={"method": serving.method})
                    span.set_status(Status(StatusCode.ERROR))
                raise
            finally:
                with telemetry.measuring():
                    self._calls.add(1, {telemetry.RPC_METHOD: name, telemetry.RPC_STATUS: code})
                    if default_timeout is not None:
                        self._duration.record(time.perf_counter() - began, {telemetry.RPC_METHOD: name})
                if serving.caller is not None:
                    span.set_attribute(telemetry.CALLER, serving.caller.agent_id)

    async def _in_time(
        self,
        serving: Call,
        context: _Context,
        default_timeout: float | None,
        metadata: Mapping[str, str],
        answer: _Answer,
    ) -> Any:
        """Answers a known caller, until its deadline, or for `default_timeout` seconds when it set none."""
        remaining = context.time_remaining()
        seconds = default_timeout if remaining is None else remaining
        if seconds is not None:
            serving.expires_at = time.monotonic() + seconds
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                self._authenticate(serving, metadata)
                answered = await answer()
        except TimeoutError:
            if not limit.expired():
                raise
            raise DeadlineExceeded("the call did not end in the time that its caller gave") from None
        if serving.replayed:
            context.set_trailing_metadata(((REPLAYED_KEY, "true"),))
        return answered

    def _authenticate(self, serving: Call, metadata: Mapping[str, str]) -> None:
        policy = self._policies.get(serving.method)
        if policy is None:
            raise PermissionDenied("this method is not open to anybody", reason="METHOD_NOT_OPEN")
        if policy.access in _NO_CREDENTIAL:
            return
        authorization = metadata.get("authorization", "")
        if not authorization:
            raise Unauthenticated("no token was sent: send 'Authorization: Bearer <token>'", reason="TOKEN_MISSING")
        if not authorization.startswith(_BEARER):
            raise invalid_token()
        caller, seconds = self._verifier.verify(authorization.removeprefix(_BEARER))
        if policy.scope and not caller.holds(policy.scope):
            raise ScopeMissing(policy.scope)
        serving.caller, serving.access_ends_at = caller, time.monotonic() + seconds


async def _write(context: _Context, message: Any) -> None:
    """Raises CancelledError when the caller has left: that is no fault, and nobody is there to be told."""
    try:
        await context.write(message)
    except BaseError:
        raise asyncio.CancelledError from None


def _request(handler: _Handler, raw: bytes) -> Message:
    """The request that was sent, checked. Read only now, so that nobody unknown can make us do it."""
    try:
        request: Message = handler.request_deserializer(raw)
    except DecodeError:
        raise InvalidArgument(
            "the request cannot be read: it is not of this contract, or is nested more than 100 messages deep",
            reason="REQUEST_UNREADABLE",
        ) from None
    validation.check(request)
    return request


def _told(error: Exception) -> ServiceError:
    """What the caller is told: nothing about a fault of ours."""
    if isinstance(error, ServiceError) and not isinstance(error, Internal):
        return error
    return Internal("internal error")
