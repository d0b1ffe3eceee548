"""How an operation can fail: its problem documents (RFC 9457), by status."""

import re
from collections.abc import Iterable, Mapping, Sequence

from services.chassis.errors import (
    BY_CODE,
    Aborted,
    Code,
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    NotFound,
    ScopeMissing,
    ServiceError,
    Unauthenticated,
    Unavailable,
    Violation,
)
from services.gateway.body import BODY_SECONDS, MAX_BODY_BYTES
from services.gateway.descriptors import KEY_HEADER, Binding, Method
from services.gateway.openapi.rules import Schema
from services.gateway.path_template import parameter_names
from services.gateway.problems import (
    MEDIA_TYPE,
    BodyTooLarge,
    BodyTooSlow,
    HeadersTooLarge,
    MediaTypeUnsupported,
    TooManyRequests,
    http_status,
    problem_document,
    title_of,
)

PROBLEM: Schema = {
    "type": "object",
    "description": "Why a request failed (RFC 9457).",
    "properties": {
        "type": {"type": "string", "format": "uri-reference", "description": "The kind of problem."},
        "title": {"type": "string", "description": "The HTTP status in words."},
        "status": {"type": "integer", "minimum": 400, "maximum": 599, "description": "The HTTP status."},
        "detail": {"type": "string", "description": "What went wrong, for people."},
        "instance": {"type": "string", "description": "The path that was asked for."},
        "code": {"type": "string", "enum": [code.name for code in Code], "description": "The gRPC status."},
        "reason": {
            "type": "string",
            "pattern": "^[A-Z][A-Z0-9_]*$",
            "description": "What went wrong, for programs: a stable name.",
        },
        "errors": {
            "type": "array",
            "description": "The faults of the request, each with its place.",
            "items": {
                "type": "object",
                "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
                "required": ["field", "message"],
            },
        },
        "trace_id": {"type": "string", "description": "The trace of this request."},
        "request_id": {"type": "string", "description": "The id of this request, as in `X-Request-ID`."},
    },
    "required": [
        *("type", "title", "status", "detail", "instance", "code", "reason", "errors", "trace_id", "request_id"),
    ],
}
_EXAMPLES: Sequence[tuple[ServiceError, str]] = (
    (InvalidArgument.of([Violation("limit", "must be from 1 to 200, and is 0")]), "The request is wrong as it is."),
    (
        Unauthenticated("no token was sent: send 'Authorization: Bearer <token>'", reason="TOKEN_MISSING"),
        "It is not known who asks.",
    ),
    (ScopeMissing("metrics:read"), "Whoever asks may not do this."),
    (NotFound("there is nothing with this id"), "What the request names does not exist."),
    (BodyTooSlow(f"the body did not arrive within {BODY_SECONDS:g} seconds"), "The body took too long to arrive."),
    (
        Aborted("version 3 is not the current one: read it again"),
        "Things are not as the request needs them: they have another state or version, or are there already.",
    ),
    (BodyTooLarge(f"the body is larger than {MAX_BODY_BYTES} bytes"), "The body is longer than is read."),
    (
        MediaTypeUnsupported("the body must be JSON in UTF-8: send it with content-type: application/json"),
        "The body is not JSON, or is compressed.",
    ),
    (
        InvalidArgument(f"{KEY_HEADER}: was used for another request", reason="IDEMPOTENCY_KEY_REUSED"),
        "The key was used before, for another request.",
    ),
    (TooManyRequests(1000, 1, retry_after=1), "More is asked for than may be."),
    (HeadersTooLarge("the address and the headers are too long"), "The address and the headers are too long."),
    (Internal("internal error"), "A fault of Baton's own."),
    (Unavailable("the service cannot be reached", retry_after=1), "Something is down or busy for now: ask again."),
    (DeadlineExceeded("the work did not end in time"), "The work did not end in time."),
)
"""One failure of each status that is answered, and what that status says."""
_ALWAYS_THE_SAME = {
    "request_id": "4f5b2a51-7a0c-4d6e-9a39-0c8f2f6f6f0e",
    "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
}

_AT_ANY_TIME = frozenset({400, 429, 431, 500, 503, 504})
_OF_A_BODY = frozenset({408, 413, 415})
_OF_A_KEY = frozenset({409, 422})
_CODE = re.compile(rf"\b({'|'.join(code.name for code in Code)})\b")
_TEXT: Schema = {"type": "string"}
_AGAIN: Schema = {"Retry-After": {"description": "When to ask again, in seconds.", "schema": {"type": "integer"}}}
_HEADERS: Mapping[int, Schema] = {
    401: {"WWW-Authenticate": {"description": "How to say who asks.", "required": True, "schema": _TEXT}},
    429: {
        **_AGAIN,
        "RateLimit": {"description": "What is left to the caller, and until when.", "schema": _TEXT},
        "RateLimit-Policy": {"description": "What the caller may ask, and in what time.", "schema": _TEXT},
    },
    503: _AGAIN,
}


def failures(method: Method, binding: Binding, comment: str) -> Schema:
    """The answers to what can go wrong with an operation: what its form makes possible, and what its comment names."""
    named = {http_status(BY_CODE[Code[name]]("")) for name in _CODE.findall(comment)}
    found = _AT_ANY_TIME | named
    if binding.body:
        found |= _OF_A_BODY
    if parameter_names(binding.template):
        found |= {404}
    if method.takes_key:
        found |= _OF_A_KEY
    if method.takes_version:
        found |= {409}
    if not method.is_open:
        found |= {401}
    if method.policy.scope:
        found |= {403}
    return {str(status): {"$ref": f"#/components/responses/{_name(status)}"} for status in sorted(found)}


def responses(headers: Schema) -> Schema:
    """The components that `failures` refers to. All have `headers`."""
    return dict(_responses(headers))


def _responses(headers: Schema) -> Iterable[tuple[str, Schema]]:
    for error, meaning in _EXAMPLES:
        status = http_status(error)
        example = problem_document(error, path="/the/path", request_id="") | _ALWAYS_THE_SAME
        content = {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}
        answer = {
            "description": meaning,
            "headers": headers | _HEADERS.get(status, {}),
            "content": {MEDIA_TYPE: content},
        }
        yield _name(status), answer


def _name(status: int) -> str:
    return title_of(status).replace(" ", "")
