"""Requests to a real server on this machine, which is allowed here; it says anything, byte for byte."""

import asyncio
import gzip
import time
import zlib
from collections.abc import AsyncIterator

import pytest

from services.chassis.egress import allowed
from services.chassis.egress.client import Egress
from services.chassis.egress.errors import (
    AddressRefused,
    AnswerBroken,
    AnswerTooLarge,
    NotReached,
    TimedOut,
    TooManyRedirects,
)
from services.chassis.egress.guard import Guard
from tests.support.http_server import HttpServer, falls_silent_after, gushes, said, trickles
from tests.support.resolver import FakeResolver, RebindingResolver

LIMIT = 1000
INSIDE = {"inside.example": ["10.0.0.1"], "localhost": ["127.0.0.1", "::1"]}
OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    async with HttpServer().serving() as serving:
        yield serving


@pytest.fixture
async def other() -> AsyncIterator[HttpServer]:
    """Another origin, if only by its port."""
    async with HttpServer().serving() as serving:
        yield serving


@pytest.fixture
def egress() -> Egress:
    return Egress(Guard(allowed.parse("127.0.0.1,service.example"), FakeResolver({"service.example": ["127.0.0.1"]})))


async def body_of(egress: Egress, url: str, timeout: float = 5.0) -> bytes:
    async with egress.request("GET", url, timeout=timeout) as answer:
        return await answer.read(LIMIT)


async def test_a_request_and_its_answer(egress: Egress, server: HttpServer) -> None:
    server.answers["/a%20b"] = said(201, b"made", content_type="text/plain", X_Own="1")
    url = server.url("/a%20b?q=%2F&r#part", host="SERVICE.example")
    async with egress.request("POST", url, headers={"X-Key": "k"}, body=b"{}", timeout=5) as answer:
        assert (answer.status, answer.headers["x-own"], await answer.read(4)) == (201, "1", b"made")
        assert str(answer.url) == server.url("/a%20b?q=%2F&r", host="service.example")
    (asked,) = server.asked
    assert (asked.method, asked.target, asked.body) == ("POST", "/a%20b?q=%2F&r", b"{}")
    assert asked.headers == {
        "host": f"service.example:{server.port}",
        "x-key": "k",
        "accept": "*/*",
        "accept-encoding": "gzip",
        "connection": "close",
        "content-length": "2",
        "user-agent": "baton",
    }


async def test_a_name_is_looked_up_once_and_connected_to_as_it_was_judged(server: HttpServer) -> None:
    resolver = RebindingResolver(["127.0.0.1"], ["127.0.0.2"])
    egress = Egress(Guard(allowed.parse("127.0.0.1"), resolver))
    server.answers["/"] = said(200, b"hello")
    assert await body_of(egress, server.url("/", host="rebinding.example")) == b"hello"
    assert resolver.asked == ["rebinding.example"]
    assert server.asked[0].headers["host"] == f"rebinding.example:{server.port}"
    with pytest.raises(AddressRefused):
        await body_of(egress, server.url("/", host="rebinding.example"))
    assert server.connections == 1


async def test_what_is_refused_is_not_connected_to(server: HttpServer) -> None:
    egress = Egress(Guard(resolver=FakeResolver({"service.example": ["127.0.0.1"]})))
    for host in ("127.0.0.1", "service.example", "127.1", "0x7f000001"):
        with pytest.raises(AddressRefused):
            await body_of(egress, server.url("/", host=host))
        with pytest.raises(AddressRefused):
            await body_of(egress, server.url("/", host=host, scheme="https"))
    assert server.connections == 0


async def test_another_address_of_the_host_is_tried_when_one_does_not_answer(server: HttpServer) -> None:
    resolver = FakeResolver({"service.example": ["127.0.0.9", "::1", "127.0.0.1"]})
    egress = Egress(Guard(allowed.parse("service.example"), resolver))
    server.answers["/"] = said(200, b"hello")
    assert await body_of(egress, server.url("/", host="service.example")) == b"hello"


async def test_a_port_where_nobody_listens(egress: Egress) -> None:
    async with HttpServer().serving() as gone:
        url = gone.url("/")
    with pytest.raises(NotReached, match="no connection: connection refused"):
        await body_of(egress, url)


async def test_a_header_that_is_none_is_not_sent_and_not_shown(egress: Egress, server: HttpServer) -> None:
    with pytest.raises(AnswerBroken, match=r"the request is no valid HTTP$"):
        async with egress.request("GET", server.url("/"), headers={"x-key": "hunter2\r\nHost: other"}, timeout=5):
            pass
    assert server.asked == []


async def test_proxies_of_the_environment_are_not_used(
    egress: Egress, server: HttpServer, other: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, other.url(""))
    server.answers["/"] = said(200, b"hello")
    assert await body_of(egress, server.url("/")) == b"hello"
    assert other.connections == 0


async def test_no_cookie_of_one_answer_is_sent_with_the_next_request(egress: Egress, server: HttpServer) -> None:
    server.answers["/"] = said(200, b"hello", Set_Cookie="session=1; Path=/")
    server.answers["/again"] = said(302, Location="/", Set_Cookie="session=2; Path=/")
    await body_of(egress, server.url("/"))
    async with egress.request("GET", server.url("/again"), timeout=5, follow_redirects=True) as answer:
        await answer.read(LIMIT)
    assert [asked.headers.get("cookie") for asked in server.asked] == [None, None, None]


# Bodies.


@pytest.mark.parametrize(
    ("body", "fits"), [(b"", True), (b"x" * LIMIT, True), (b"x" * (LIMIT + 1), False), (b"x" * 10**6, False)]
)
async def test_a_body_is_read_up_to_the_limit(egress: Egress, server: HttpServer, body: bytes, fits: bool) -> None:
    server.answers["/plain"] = said(200, body)
    server.answers["/gzip"] = said(200, gzip.compress(body), Content_Encoding="gzip")
    server.answers["/chunked"] = OK + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    server.answers["/to-the-end"] = OK + b"\r\n" + body
    for path in ("/plain", "/gzip", "/to-the-end", *(["/chunked"] if body else [])):
        if fits:
            assert await body_of(egress, server.url(path)) == body
        else:
            with pytest.raises(AnswerTooLarge, match=f"more than {LIMIT} bytes"):
                await body_of(egress, server.url(path))
        async with egress.request("GET", server.url(path), timeout=5) as answer:
            assert await answer.read_beginning(10) == body[:10]


async def test_a_small_body_that_unpacks_to_a_huge_one(egress: Egress, server: HttpServer) -> None:
    server.answers["/bomb"] = said(200, gzip.compress(bytes(10**8)), Content_Encoding="gzip")
    begun = time.process_time()
    with pytest.raises(AnswerTooLarge):
        await body_of(egress, server.url("/bomb"))
    assert time.process_time() - begun < 0.1  # unpacking it all takes longer


async def test_a_body_that_unpacks_to_nothing_for_ever(egress: Egress, server: HttpServer) -> None:
    head, empty = OK + b"Content-Encoding: gzip\r\n\r\n", gzip.compress(b"")
    header, empty_block = empty[:10], b"\x00\x00\x00\xff\xff"
    server.answers["/blocks"] = gushes(head + header, empty_block * 1000)
    server.answers["/members"] = gushes(head, empty * 1000)
    for path in ("/blocks", "/members"):
        with pytest.raises(AnswerTooLarge):
            await body_of(egress, server.url(path))


async def test_an_endless_body(egress: Egress, server: HttpServer) -> None:
    server.answers["/"] = gushes(OK + b"\r\n", b"x" * 10_000)
    with pytest.raises(AnswerTooLarge):
        await body_of(egress, server.url("/"))


async def test_several_gzip_members_are_one_body(egress: Egress, server: HttpServer) -> None:
    packed = gzip.compress(b"one ") + gzip.compress(b"") + gzip.compress(b"two")
    server.answers["/"] = said(200, packed, Content_Encoding="X-GZip")
    assert await body_of(egress, server.url("/")) == b"one two"


@pytest.mark.parametrize(
    "answer",
    [
        said(200, gzip.compress(b"hello")[:-3], Content_Encoding="gzip"),
        said(200, b"hello", Content_Encoding="gzip"),
        said(200, gzip.compress(b"hello") + b"rubbish", Content_Encoding="gzip"),
        said(200, gzip.compress(gzip.compress(b"hello")), Content_Encoding="gzip, gzip"),
        said(200, zlib.compress(b"hello"), Content_Encoding="deflate"),
        said(200, b"hello", Content_Encoding="br"),
        OK + b"Content-Length: 10\r\n\r\nhello",
        OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        OK + b"Content-Length: -1\r\n\r\nhello",
        OK + b"Content-Length: five\r\n\r\nhello",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello",
        OK + b"Transfer-Encoding: chunked\r\n\r\nfive\r\nhello\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: identity\r\n\r\nhello",
        OK + b"X-Header: " + b"x" * 200_000 + b"\r\n\r\n",
        OK + b"no colon\r\n\r\n",
        b"hello",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"",
    ],
)
async def test_an_answer_that_is_none(egress: Egress, server: HttpServer, answer: bytes) -> None:
    server.answers["/"] = answer
    with pytest.raises(AnswerBroken):
        await body_of(egress, server.url("/"))


async def test_bytes_behind_the_end_are_not_part_of_the_body(egress: Egress, server: HttpServer) -> None:
    server.answers["/"] = OK + b"Content-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n\r\nevil"
    assert await body_of(egress, server.url("/")) == b"hello"


# Time.


@pytest.mark.parametrize(
    "speaking",
    [
        falls_silent_after(b""),
        falls_silent_after(b"HTTP/1.1 200"),
        falls_silent_after(OK + b"Content-Length: 5\r\n\r\nhel"),
        trickles(OK, b"X-More: 1\r\n"),
        trickles(OK + b"Content-Length: 900\r\n\r\n", b"x"),
        trickles(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        trickles(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        gushes(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    ],
)
async def test_the_time_is_for_all_of_an_answer(egress: Egress, server: HttpServer, speaking: object) -> None:
    server.answers["/"] = speaking  # type: ignore[assignment]
    begun = time.monotonic()
    with pytest.raises(TimedOut, match=r"no answer within 0\.3 s"):
        await body_of(egress, server.url("/"), timeout=0.3)
    assert 0.3 <= time.monotonic() - begun < 3


async def test_the_time_is_for_all_redirects_together(egress: Egress, server: HttpServer) -> None:
    server.answers["/"] = said(302, Location="/slow")
    server.answers["/slow"] = falls_silent_after(b"")
    with pytest.raises(TimedOut):
        async with egress.request("GET", server.url("/"), timeout=0.3, follow_redirects=True):
            pass


async def test_the_time_is_also_for_the_name() -> None:
    class Slow(FakeResolver):
        async def resolve(self, host: str, port: int) -> list[str]:
            await asyncio.Event().wait()
            return []

    with pytest.raises(TimedOut):
        await body_of(Egress(Guard(resolver=Slow())), "https://slow.example/", timeout=0.1)


async def test_a_timeout_of_the_callers_own_stays_its_own(egress: Egress, server: HttpServer) -> None:
    server.answers["/"] = said(200, b"hello")
    with pytest.raises(TimeoutError, match="of its own"):
        async with egress.request("GET", server.url("/"), timeout=5):
            raise TimeoutError("of its own")


# Redirects.


async def test_redirects_are_not_followed_unless_asked(egress: Egress, server: HttpServer) -> None:
    server.answers["/"] = said(302, Location="/next")
    async with egress.request("GET", server.url("/"), timeout=5) as answer:
        assert (answer.status, answer.headers["location"]) == (302, "/next")


@pytest.mark.parametrize(
    ("status", "method", "then"),
    [
        (301, "GET", "GET"),
        (301, "HEAD", "HEAD"),
        (301, "POST", "GET"),
        (301, "PUT", "PUT"),
        (301, "DELETE", "DELETE"),
        (302, "POST", "GET"),
        (302, "PATCH", "PATCH"),
        (303, "GET", "GET"),
        (303, "HEAD", "HEAD"),
        (303, "POST", "GET"),
        (303, "DELETE", "GET"),
        (307, "POST", "POST"),
        (307, "GET", "GET"),
        (308, "POST", "POST"),
        (308, "PUT", "PUT"),
    ],
)
async def test_what_becomes_of_the_method_and_the_body(
    egress: Egress, server: HttpServer, status: int, method: str, then: str
) -> None:
    server.answers["/"] = said(status, Location="next?x=1#part")
    server.answers["/next"] = said(200)
    headers = {"content-type": "text/plain", "idempotency-key": "k", "authorization": "secret", "x-own": "1"}
    body = None if method in ("GET", "HEAD") else b"body"
    async with egress.request(
        method, server.url("/"), headers=headers, body=body, timeout=5, follow_redirects=True
    ) as answer:
        assert (answer.status, str(answer.url)) == (200, server.url("/next?x=1"))
    _, second = server.asked
    kept = {name: value for name, value in second.headers.items() if name in headers}
    assert (second.method, second.body) == (then, (body or b"") if then == method else b"")
    assert kept == (headers if then == method else {"authorization": "secret", "x-own": "1"})


@pytest.mark.parametrize(
    ("status", "headers"), [(300, {"Location": "/next"}), (304, {"Location": "/next"}), (302, {}), (305, {})]
)
async def test_what_is_no_redirect_is_the_answer(
    egress: Egress, server: HttpServer, status: int, headers: dict[str, str]
) -> None:
    server.answers["/"] = said(status, **headers)
    async with egress.request("GET", server.url("/"), timeout=5, follow_redirects=True) as answer:
        assert answer.status == status


async def test_another_origin_hears_no_secrets_and_neither_does_the_way_back(
    egress: Egress, server: HttpServer, other: HttpServer
) -> None:
    server.answers["/"] = said(307, Location=other.url("/there"))
    other.answers["/there"] = said(307, Location=server.url("/back"))
    server.answers["/back"] = said(200)
    plain = {"accept": "text/html", "content-type": "text/plain", "idempotency-key": "k", "user-agent": "tests"}
    secret = {
        "Authorization": "s",
        "Cookie": "s",
        "X-Api-Key": "s",
        "webhook-signature": "s",
        "Proxy-Authorization": "s",
    }
    async with egress.request(
        "POST", server.url("/"), headers=plain | secret, body=b"x", timeout=5, follow_redirects=True
    ) as answer:
        assert answer.status == 200
    first, back, there = *server.asked, *other.asked
    assert first.headers.items() >= {name.lower(): value for name, value in secret.items()}.items()
    for asked in (there, back):
        assert "s" not in asked.headers.values()
        assert asked.headers.items() >= plain.items()
    assert there.headers["host"] == f"127.0.0.1:{other.port}"


async def test_another_name_is_another_origin_even_on_the_same_machine(egress: Egress, server: HttpServer) -> None:
    server.answers["/"] = said(302, Location=server.url("/there", host="service.example"))
    server.answers["/there"] = said(200)
    async with egress.request(
        "GET", server.url("/"), headers={"authorization": "s"}, timeout=5, follow_redirects=True
    ) as answer:
        assert answer.url.host == "service.example"
    assert "authorization" not in server.asked[1].headers


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.2/",
        "http://localhost/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://169.254.169.254/latest/meta-data/",
        "https://10.0.0.1/",
        "https://inside.example/",
        "//169.254.169.254/",
        "//user:word@127.0.0.1/",
        "http://user@127.0.0.1/",
        "http://93.184.215.14/",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "data:text/plain,hello",
        "javascript:alert(1)",
        "http://",
        "http:///",
        "http://127.0.0.1:0/",
        "/a\\b",
        "\\\\169.254.169.254\\",
        "/a b",
        "/\x7f",
    ],
)
async def test_a_redirect_is_judged_like_any_url(server: HttpServer, location: str) -> None:
    egress = Egress(Guard(allowed.parse("127.0.0.1"), FakeResolver(INSIDE)))
    server.answers["/"] = said(302, Location=location)
    with pytest.raises(AddressRefused, match=r"^redirects to a URL that is refused: "):
        async with egress.request("GET", server.url("/"), timeout=5, follow_redirects=True):
            pass
    assert server.connections == 1


async def test_at_most_five_redirects_are_followed(egress: Egress, server: HttpServer) -> None:
    for step in range(6):
        server.answers[f"/{step}"] = said(302, Location=f"/{step + 1}")
    server.answers["/6"] = said(200)
    async with egress.request("GET", server.url("/1"), timeout=5, follow_redirects=True) as answer:
        assert answer.url.path == "/6"
    with pytest.raises(TooManyRedirects, match="more than 5 redirects"):
        async with egress.request("GET", server.url("/0"), timeout=5, follow_redirects=True):
            pass
    assert [asked.target for asked in server.asked[6:]] == [f"/{step}" for step in range(6)]
