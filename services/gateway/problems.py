"""Failures as problem documents (RFC 9457)."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from math import ceil
from typing import Any

import orjson
from starlette.responses import Response

from services.chassis import telemetry
from services.chassis.errors import Code, Internal, InvalidArgument, ResourceExhausted, ServiceError, Unimplemented

MEDIA_TYPE = "application/problem+json"
# So many faults are named; a caller that has more to mend will ask again.
_FAULTS_SHOWN = 100
_STATUS: Mapping[Code, int] = {
    Code.INVALID_ARGUMENT: 400,
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.ABORTED: 409,
    Code.FAILED_PRECONDITION: 409,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
}
# Where HTTP has a word of its own for what gRPC tells apart by reason only.
_STATUS_BY_REASON: Mapping[str, int] = {
    "BODY_TOO_LARGE": 413,
    "BODY_TOO_SLOW": 408,
    "HEADERS_TOO_LARGE": 431,
    "MEDIA_TYPE_UNSUPPORTED": 415,
    "METHOD_NOT_ALLOWED": 405,
    "IDEMPOTENCY_KEY_REUSED": 422,
}

# By RFC 9110; some versions of Python have older names.
_TITLES: Mapping[int, str] = {413: "Content Too Large", 422: "Unprocessable Content"}


class BodyTooLarge(InvalidArgument):
    """The body is longer than is read."""

    default_reason = "BODY_TOO_LARGE"


class MediaTypeUnsupported(InvalidArgument):
    """The body is not JSON, or is compressed."""

    default_reason = "MEDIA_TYPE_UNSUPPORTED"


class BodyTooSlow(InvalidArgument):
    """The body did not arrive in the time that is waited for it."""

    default_reason = "BODY_TOO_SLOW"


class HeadersTooLarge(InvalidArgument):
    """The request's line and headers are longer than is read."""

    default_reason = "HEADERS_TOO_LARGE"


class TooManyRequests(ResourceExhausted):
    """The caller asks more often than it may: `quota` times in `window` seconds."""

    default_reason = "TOO_MANY_REQUESTS"

    def __init__(self, quota: int, window: int, retry_after: float) -> None:
        per = "a second" if window == 1 else f"in {window} seconds"
        super().__init__(f"more than {quota} requests {per} came from this caller", retry_after=retry_after)
        self.quota, self.window = quota, window


class MethodNotAllowed(Unimplemented):
    """The path exists, but not for this HTTP method."""

    default_reason = "METHOD_NOT_ALLOWED"

    def __init__(self, verb: str, allowed: Sequence[str]) -> None:
        super().__init__(f"{verb} is not possible here, only {', '.join(allowed)}")
        self.allowed = allowed


def http_status(error: ServiceError) -> int:
    """The status that `error` is answered with."""
    return _STATUS_BY_REASON.get(error.reason) or _STATUS.get(error.code, 500)


def problem_response(error: ServiceError, *, path: str, request_id: str) -> Response:
    """The problem document of `error` as an answer."""
    document = problem_document(error, path=path, request_id=request_id)
    status = http_status(error)
    return Response(orjson.dumps(document), status, _headers(error, status), MEDIA_TYPE)


def problem_document(error: ServiceError, *, path: str, request_id: str) -> dict[str, Any]:
    """What is told of `error`. One that is a fault of ours says so, and nothing else."""
    status = http_status(error)
    shown = Internal("internal error") if status == HTTPStatus.INTERNAL_SERVER_ERROR else error
    return {
        "type": f"/problems/{shown.reason.lower().replace('_', '-')}",
        "title": title_of(status),
        "status": status,
        "detail": shown.message,
        "instance": path,
        "code": shown.code.name,
        "reason": shown.reason,
        "errors": [{"field": one.field, "message": one.description} for one in shown.violations[:_FAULTS_SHOWN]],
        "trace_id": telemetry.trace_id(),
        "request_id": request_id,
    }


def title_of(status: int) -> str:
    """The words of an HTTP status."""
    return _TITLES.get(status) or HTTPStatus(status).phrase


def retry_after_seconds(delay: float) -> int:
    """The whole seconds that a caller is told to wait."""
    return max(1, ceil(delay))


def _headers(error: ServiceError, status: int) -> dict[str, str]:
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(retry_after_seconds(error.retry_after))
    if isinstance(error, TooManyRequests):
        # draft-ietf-httpapi-ratelimit-headers
        headers["RateLimit-Policy"] = f'"caller";q={error.quota};w={error.window}'
        headers["RateLimit"] = f'"caller";r=0;t={headers["Retry-After"]}'
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = ", ".join(error.allowed)
    return headers
