"""Where an answer sends a request, and what of the request goes there (RFC 9110, section 15.4)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import httpx2

from services.chassis.egress import urls
from services.chassis.egress.errors import AddressRefused

MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
# What another origin is told: a header of any other name may be a secret that was meant for the first one.
_FOR_OTHER_ORIGINS = frozenset(
    {"accept", "accept-encoding", "accept-language", "connection", "content-language", "content-type"}
    | {"idempotency-key", "user-agent"}
)

_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


@dataclass(frozen=True)
class Hop:
    """One request on the way to the answer."""

    method: str
    url: httpx2.URL
    headers: Mapping[str, str]
    """By their names in lower case."""
    body: bytes | None


def leads_on(status: int, headers: Mapping[str, str]) -> bool:
    """Whether an answer is a redirect that says where to."""
    return status in _REDIRECTS and "location" in headers


def next_hop(hop: Hop, status: int, location: str) -> Hop:
    """The request that follows when `hop` was redirected so.

    Raises AddressRefused when it leads from https to http, or to what is no URL.
    """
    url, method = _target(hop.url, location), _method(hop.method, status)
    headers = dict(hop.headers)
    if _origin(url) != _origin(hop.url):
        headers = {name: value for name, value in headers.items() if name in _FOR_OTHER_ORIGINS}
    if method == hop.method:
        return Hop(method, url, headers, hop.body)
    return Hop(method, url, {name: value for name, value in headers.items() if not _goes_with_body(name)}, None)


def _goes_with_body(header: str) -> bool:
    return header.startswith("content-") or header == "idempotency-key"


def _target(url: httpx2.URL, location: str) -> httpx2.URL:
    target = urls.read(location if _ABSOLUTE.match(location) else _joined(url, location))
    if url.scheme == "https" and target.scheme == "http":
        raise AddressRefused("is refused: it is http, and https was asked for")
    return target


def _joined(url: httpx2.URL, location: str) -> str:
    urls.check_characters(location)  # of which joining would silently drop some
    try:
        return str(url.join(location))
    except (httpx2.InvalidURL, ValueError):
        raise AddressRefused("is refused: it is no valid URL") from None


def _origin(url: httpx2.URL) -> tuple[str, str, int]:
    return url.scheme, urls.host_of(url), urls.port_of(url)


def _method(method: str, status: int) -> str:
    if status == 303 and method != "HEAD":
        return "GET"
    return "GET" if status in (301, 302) and method == "POST" else method
