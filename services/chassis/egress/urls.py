"""The text of a URL, read strictly and in one way only: what is judged is what is connected to."""

import re
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

import httpx2

from services.chassis.egress.addresses import Address
from services.chassis.egress.errors import AddressRefused

MAX_LENGTH = 8192
_DEFAULT_PORTS = {"http": 80, "https": 443}
# No user name, no percent signs; brackets only around an IPv6 address, which must have them.
_AUTHORITY = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\[\]:@%]+)(?::(?P<port>[0-9]{1,5}))?")
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_MAX_NAME_LENGTH = 253
_SHORTEST_SECRET = 8
# Whatever ends like this is a number to the system's resolver: 127.1, 2130706433, 0x7f.1.
_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")


def read(text: str) -> httpx2.URL:
    """An absolute http or https URL without a fragment. Raises AddressRefused, which says what would be right."""
    if len(text) > MAX_LENGTH:
        raise AddressRefused(f"is refused: it is longer than {MAX_LENGTH} characters")
    check_characters(text)
    scheme, separator, rest = text.partition("://")
    if not separator or scheme.lower() not in _DEFAULT_PORTS:
        raise AddressRefused("is refused: it must begin with https://")
    _check_authority(re.split("[/?#]", rest, maxsplit=1)[0])
    try:
        url = httpx2.URL(text)
    except (httpx2.InvalidURL, ValueError):
        raise AddressRefused("is refused: it is no valid URL") from None
    if not is_host(host_of(url)):
        raise AddressRefused("is refused: its host must be a name, an IPv4 address of four decimal numbers or [IPv6]")
    return url.copy_with(fragment=None)


def check_characters(text: str) -> None:
    """Raises AddressRefused for what one reader of a URL drops and another one does not."""
    if not text.isprintable() or " " in text or "\\" in text:
        raise AddressRefused("is refused: it must not contain spaces, control characters or backslashes")


def host_of(url: httpx2.URL) -> str:
    """The host in ASCII and lower case; an IPv6 address has no brackets."""
    return url.raw_host.decode("ascii")


def port_of(url: httpx2.URL) -> int:
    """The port, which is the scheme's own when the URL names none."""
    return url.port or _DEFAULT_PORTS[url.scheme]


def origin(url: httpx2.URL) -> str:
    """Scheme, host and port: what may be told of a URL whose rest may be all that lets somebody in."""
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


def confidential(url: httpx2.URL) -> Iterator[str]:
    """The parts of a URL's path and query that are long enough to be what lets somebody in."""
    for part in (*url.path.split("/"), *url.params.values()):
        if len(part) >= _SHORTEST_SECRET:
            yield part


def is_host(host: str) -> bool:
    """Whether this is an IP address as it is usually written, or a name that no system takes for one."""
    if literal(host) is not None:
        return True
    return len(host) <= _MAX_NAME_LENGTH and bool(_NAME.fullmatch(host)) and not _NUMBER.fullmatch(host)


def literal(host: str) -> Address | None:
    """The IP address that stands in place of a name, if one does."""
    try:
        address: IPv4Address | IPv6Address = ip_address(host)
    except ValueError:
        return None
    return address


def _check_authority(authority: str) -> None:
    if "@" in authority:
        raise AddressRefused("is refused: it must not contain a user name or password")
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        raise AddressRefused("is refused: it must name a host, and after a colon at most a port")
    if parts["port"] and not 1 <= int(parts["port"]) <= 65535:
        raise AddressRefused("is refused: its port must be one from 1 to 65535")
