"""What every request meets first and every answer last: its id, its span, the limits, its line in the access log."""

import asyncio
import logging
import re
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager

import uuid_utils
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from services import metric_names
from services.chassis import telemetry
from services.chassis.errors import Internal, ServiceError
from services.gateway import health, server
from services.gateway.browsers import Browsers
from services.gateway.capacity import Capacity
from services.gateway.problems import HeadersTooLarge, problem_response
from services.gateway.rate_limit import RateLimit
from services.gateway.routes import Endpoint, Router, Values

# OpenTelemetry semantic conventions, stable HTTP names.
HTTP_METHOD = "http.request.method"
HTTP_ROUTE = "http.route"
HTTP_STATUS = "http.response.status_code"
URL_PATH = "url.path"

_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_CLIENT_LEFT = 499
# Of the request's path, its query and all of its headers.
MAX_HEADER_BYTES = 32 * 1024
_log = logging.getLogger(__name__)


class Edge:
    """The gateway as an ASGI application."""

    def __init__(self, router: Router, rate_limit: RateLimit, capacity: Capacity, browsers: Browsers) -> None:
        self._router = router
        self._rate_limit = rate_limit
        self._capacity = capacity
        self._browsers = browsers
        self._metrics = _Metrics()

    async def close(self) -> None:
        """Ends the connections that it has of its own."""
        await self._rate_limit.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(f"the gateway does not speak {scope['type']}")
        request = Request(scope, receive)
        given = request.headers.get("x-request-id", "")
        scope["request_id"] = given if _REQUEST_ID.fullmatch(given) else str(uuid_utils.uuid4())
        with _server_span(request) as span:
            answer = _Answer(scope, send, self._browsers)
            began = time.perf_counter()
            try:
                await self._serve(request, answer, span)
            finally:
                self._rate_limit.judge(request, answer.status)
                seconds = time.perf_counter() - began
                self._metrics.record(request, answer, seconds)
                _record(request, answer, span, seconds)

    async def _serve(self, request: Request, answer: "_Answer", span: Span) -> None:
        try:
            response = await self._respond(request, span)
            await response(request.scope, request.receive, answer.send)
        except ClientDisconnect:
            answer.status = _CLIENT_LEFT
        except Exception:
            # An answer that has begun can only be broken off: whoever reads it must not take it for whole.
            _log.warning("transfer_broken", exc_info=True)
            span.set_status(Status(StatusCode.ERROR))
            raise
        finally:
            self._capacity.leave_place(request)

    async def _respond(self, request: Request, span: Span) -> Response:
        try:
            _check_headers(request)
            preflight = self._browsers.preflight(request, self._router)
            if preflight is not None:
                return preflight
            if request.scope["path"] not in health.PATHS:
                await self._rate_limit.take(request)
                self._capacity.take_place(request)
            endpoint, values = self._route(request, span)
            return await endpoint(request, values)
        except ServiceError as error:
            request.scope.setdefault("noted", {}).setdefault("reason", error.reason)
            if isinstance(error, Internal):
                _log.error("request_failed", exc_info=True)
            return _problem(request, error)
        except ClientDisconnect:
            raise
        except Exception:
            _log.exception("request_failed")
            return _problem(request, Internal("internal error"))

    def _route(self, request: Request, span: Span) -> tuple[Endpoint, Values]:
        route, values = self._router.match(request.method, request.scope["raw_path"])
        request.scope["route"] = route.template
        span.update_name(f"{request.method} {route.template}")
        span.set_attribute(HTTP_ROUTE, route.template)
        return route.endpoint, values


class _Answer:
    """Sends an answer with the headers that every one has, and remembers how far it came."""

    def __init__(self, scope: Scope, send: Send, browsers: Browsers) -> None:
        self._scope, self._send, self._browsers = scope, send, browsers
        self.status = 0
        self.is_complete = False
        self._has_parts = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message["headers"], (b"x-request-id", self._scope["request_id"].encode("ascii"))]
            self._browsers.mark(self._scope, headers)
            # Not a byte is on its way before there is a part of the body.
            await self._send({**message, "headers": headers})
            return
        is_last = not message.get("more_body", False)
        if is_last and not self._has_parts:
            # All of the answer at one go, which the server takes at once, whatever becomes of it.
            await self._send(message)
        else:
            self._has_parts = True
            async with asyncio.timeout(server.STALL_SECONDS):
                await self._send(message)
        self.is_complete = is_last


class _Metrics:
    """How many requests there were, and how long they took."""

    def __init__(self) -> None:
        # Counted here and told when somebody asks: that costs a tenth of telling each.
        self._requests: dict[tuple[str, str, int], int] = {}
        meter = telemetry.meter()
        meter.create_observable_counter(
            metric_names.HTTP_REQUESTS,
            [self._observe],
            description="requests over HTTP, by method, route and status",
        )
        self._duration = meter.create_histogram(
            metric_names.HTTP_REQUEST_DURATION, unit="s", description="how long requests over HTTP took, by route"
        )

    def record(self, request: Request, answer: _Answer, seconds: float) -> None:
        method = request.method if request.method in _KNOWN_METHODS else "_OTHER"
        # The route and not the path: anybody can make up paths.
        route = request.scope.get("route", "")
        key = (method, route, answer.status)
        self._requests[key] = self._requests.get(key, 0) + 1
        self._duration.record(seconds, {"method": method, "route": route})

    def _observe(self, _: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(count, {"method": method, "route": route, "status": str(status)})
            for (method, route, status), count in dict(self._requests).items()
        ]


def _check_headers(request: Request) -> None:
    scope = request.scope
    size = len(scope["raw_path"]) + len(scope["query_string"])
    if size + sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
        raise HeadersTooLarge(f"the address and the headers are longer than {MAX_HEADER_BYTES} bytes together")


def _problem(request: Request, error: ServiceError) -> Response:
    path = request.scope["raw_path"].decode("latin-1")
    return problem_response(error, path=path, request_id=request.scope["request_id"])


def _server_span(request: Request) -> AbstractContextManager[Span]:
    method = request.method if request.method in _KNOWN_METHODS else "_OTHER"
    return telemetry.tracer().start_as_current_span(
        "HTTP" if method == "_OTHER" else method,
        context=telemetry.remote_context(request.headers),
        kind=SpanKind.SERVER,
        attributes={HTTP_METHOD: method, URL_PATH: request.scope["path"]},
        record_exception=False,
        set_status_on_exception=False,
    )


def _record(request: Request, answer: _Answer, span: Span, seconds: float) -> None:
    span.set_attribute(HTTP_STATUS, answer.status)
    if answer.status >= 500:
        span.set_status(Status(StatusCode.ERROR))
    fields = {
        "method": request.method,
        "route": request.scope.get("route", ""),
        "status": answer.status,
        "complete": answer.is_complete,
        "duration_ms": round(seconds * 1000, 3),
        "request_id": request.scope["request_id"],
        **request.scope.get("noted", {}),
    }
    _log.info("request", extra=fields)
