"""What browsers are told: whose scripts may read answers (CORS), and what they must not do with them."""

from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from services.chassis.config import ConfigurationError
from services.gateway.problems import MethodNotAllowed
from services.gateway.routes import Router

RawHeaders = list[tuple[bytes, bytes]]
_SENT = (
    "authorization, content-type, idempotency-key, if-match, last-event-id, mcp-method, mcp-name, "
    "mcp-protocol-version, traceparent, tracestate, x-request-id"
)
_READ = (
    "Content-Disposition, ETag, Idempotent-Replayed, Location, RateLimit, RateLimit-Policy, Retry-After, X-Request-ID"
)
_PREFLIGHT_SECONDS = "600"
# For answers that are data. Pages for people bring a policy of their own.
_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
_ALWAYS = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
_HTTPS_ONLY = (b"strict-transport-security", b"max-age=31536000; includeSubDomains")


class Browsers:
    """The origins whose scripts may call, and whether browsers reach the gateway over https alone."""

    def __init__(self, origins: str, https: bool) -> None:
        """`origins` are such as `https://a.example,http://localhost:5173`. Raises ConfigurationError."""
        self._origins = frozenset(_origins(origins))
        self._always = [*_ALWAYS, _HTTPS_ONLY] if https else _ALWAYS

    def preflight(self, request: Request, router: Router) -> Response | None:
        """The answer to a browser that asks whether a script may send a request; None when this is none of those."""
        asked = request.headers.get("access-control-request-method")
        if request.method != "OPTIONS" or not asked or not self._allows(request.scope):
            return None
        headers = {
            "Access-Control-Allow-Methods": ", ".join(_methods(router, request)),
            "Access-Control-Allow-Headers": _SENT,
            "Access-Control-Max-Age": _PREFLIGHT_SECONDS,
        }
        return Response(status_code=204, headers=headers)

    def mark(self, scope: Scope, headers: RawHeaders) -> None:
        """Adds to the headers of an answer what every answer has."""
        names = {name for name, _ in headers}
        headers.extend(header for header in self._always if header[0] not in names)
        if _POLICY[0] not in names:
            headers.append(_POLICY)
        if self._origins:
            # Also where there is no origin: a cache must not give this answer to somebody who has one.
            headers.append((b"vary", b"Origin"))
            if self._allows(scope):
                headers.append((b"access-control-allow-origin", _origin(scope)))
                headers.append((b"access-control-expose-headers", _READ.encode()))

    def _allows(self, scope: Scope) -> bool:
        return _origin(scope) in self._origins


def _origin(scope: Scope) -> bytes:
    given: Mapping[bytes, bytes] = dict(scope["headers"])
    return given.get(b"origin", b"")


def _methods(router: Router, request: Request) -> Sequence[str]:
    """The methods that the path takes. Raises NotFound when it is no path."""
    try:
        router.match(request.method, request.scope["raw_path"])
    except MethodNotAllowed as known:
        return known.allowed
    return (request.method,)


def _origins(text: str) -> Iterable[bytes]:
    for origin in filter(None, (part.strip() for part in text.split(","))):
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or origin != f"{parts.scheme}://{parts.netloc}".lower():
            raise ConfigurationError(
                f"BATON_CORS_ORIGINS has {origin!r}: write whole origins as browsers send them, such as "
                "https://console.example or http://localhost:5173, separated by commas"
            )
        yield origin.encode()
