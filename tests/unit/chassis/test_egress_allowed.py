"""What an operator allows beside the public internet."""

import pytest

from services.chassis.config import ConfigurationError
from services.chassis.egress import allowed, urls
from services.chassis.egress.errors import AddressRefused
from services.chassis.egress.guard import Guard
from tests.support.resolver import FakeResolver

NAMES = {
    "localhost": ["127.0.0.1", "::1"],
    "internal.svc": ["10.1.2.3"],
    "other.svc": ["10.1.2.4"],
    "a.internal.svc": ["10.1.2.3"],
    "svc": ["10.1.2.3"],
    "far.svc": ["10.2.0.1"],
    "both.svc": ["10.1.2.3", "10.2.0.1"],
    "half.svc": ["10.1.2.3", "93.184.215.14"],
    "zone.svc": ["fe80::1%1"],
    "public.example": ["93.184.215.14"],
}


async def judged(url: str, allow: str) -> None:
    await Guard(allowed.parse(allow), FakeResolver(NAMES)).addresses(urls.read(url))


@pytest.mark.parametrize(
    ("allow", "url"),
    [
        ("loopback", "http://127.0.0.1:8080/"),
        ("loopback", "https://127.3.2.1/"),
        ("loopback", "http://[::1]:8080/"),
        ("loopback", "http://localhost/"),
        ("internal.svc", "http://internal.svc/"),
        ("internal.svc", "http://INTERNAL.svc:9999/"),
        ("Internal.SVC", "https://internal.svc/"),
        ("internal.svc:8080", "http://internal.svc:8080/"),
        ("internal.svc:80", "http://internal.svc/"),
        ("internal.svc:443", "https://internal.svc/"),
        ("10.1.0.0/16", "http://internal.svc/"),
        ("10.1.0.0/16", "http://10.1.255.255:99/"),
        ("10.1.2.3", "http://internal.svc:99/"),
        ("10.1.2.3:99", "http://internal.svc:99/"),
        ("10.1.0.0/16, 10.2.0.1", "http://both.svc/"),
        ("10.1.2.3", "https://half.svc/"),
        ("fd00::/8", "http://[fd00::1]/"),
        ("fd00::1", "http://[fd00::1]:99/"),
        ("[fd00::1]", "http://[fd00::1]:99/"),
        ("[fd00::1]:99", "http://[fd00::1]:99/"),
        ("public.example", "http://public.example/"),
        (" , loopback , internal.svc,", "http://internal.svc/"),
        ("internal.svc", "https://public.example/"),
    ],
)
async def test_what_is_allowed_is_reached(allow: str, url: str) -> None:
    await judged(url, allow)


@pytest.mark.parametrize(
    ("allow", "url"),
    [
        ("", "http://127.0.0.1/"),
        ("loopback", "http://0.0.0.0/"),
        ("loopback", "http://128.0.0.1/"),
        ("loopback", "http://[::ffff:127.0.0.1]/"),
        ("loopback", "http://10.1.2.3/"),
        ("loopback", "http://public.example/"),
        ("127.0.0.1", "http://localhost/"),  # which is ::1, too
        ("internal.svc", "http://other.svc/"),
        ("internal.svc", "http://a.internal.svc/"),
        ("internal.svc", "http://svc/"),
        ("internal.svc", "http://10.1.2.3/"),
        ("internal.svc:8080", "http://internal.svc/"),
        ("internal.svc:8080", "http://internal.svc:8081/"),
        ("internal.svc:80", "https://internal.svc/"),
        ("10.1.0.0/16", "http://far.svc/"),
        ("10.1.0.0/16", "http://both.svc/"),
        ("10.1.2.3:99", "http://internal.svc:98/"),
        ("10.1.2.3", "http://half.svc/"),  # the public half is not for http
        ("zone.svc", "http://zone.svc/"),
        ("internal.svc", "http://internal.svc@127.0.0.1/"),
        ("internal.svc", "ftp://internal.svc/"),
        ("public.example", "http://93.184.215.14/"),
    ],
)
async def test_nothing_else_is(allow: str, url: str) -> None:
    with pytest.raises(AddressRefused):
        await judged(url, allow)


@pytest.mark.parametrize(
    "entry",
    [
        "https://internal.svc",
        "internal.svc/api",
        "internal.svc:0",
        "internal.svc:65536",
        "internal.svc:",
        "internal.svc:\uff180",
        "int\u00e9rieur.svc",
        "user@internal.svc",
        "[internal.svc]",
        "*.svc",
        "a b",
        ":80",
        "10.1",
        "0x7f.1",
        "127.0.0.1.",
        "10.1.2.3/16",
        "10.1.0.0/33",
        "10.1.0.0/16:80",
        "[fd00::1",
        "::1:x",
    ],
)
def test_an_entry_that_cannot_be_read_is_named(entry: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^BATON_EGRESS_ALLOW has ") as refused:
        allowed.parse(f"loopback,{entry}")
    assert repr(entry) in str(refused.value)


def test_nothing_is_allowed_by_default() -> None:
    assert allowed.parse("") == allowed.Allowed()
