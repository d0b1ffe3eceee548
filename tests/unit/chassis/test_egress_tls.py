"""TLS to a server whose name resolves to this machine."""

import asyncio
from pathlib import Path

import pytest

from services.chassis.egress import allowed
from services.chassis.egress.client import Egress
from services.chassis.egress.errors import AddressRefused, NotReached, TimedOut
from services.chassis.egress.guard import Guard
from tests.support.certificates import Authority
from tests.support.http_server import HttpServer, said
from tests.support.resolver import FakeResolver
from tests.support.waiting import await_until

NAMES = {"service.example": ["127.0.0.1"], "other.example": ["127.0.0.1"]}


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """One that everybody trusts who looks at the environment."""
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    return authority


def egress() -> Egress:
    return Egress(Guard(allowed.parse("loopback"), FakeResolver(NAMES)))


async def status_of(url: str, *, follow_redirects: bool = False) -> int:
    async with egress().request("GET", url, timeout=5, follow_redirects=follow_redirects) as answer:
        return answer.status


async def test_the_name_is_asked_for_and_checked_although_an_address_is_connected_to(authority: Authority) -> None:
    async with HttpServer().serving(authority.server("service.example")) as server:
        server.answers["/"] = said(200)
        assert await status_of(server.url("/", "service.example", "https")) == 200
        (asked,) = server.asked
        assert (asked.server_name, asked.headers["host"]) == ("service.example", f"service.example:{server.port}")
        for host in ("other.example", "127.0.0.1"):
            with pytest.raises(NotReached, match=r"the certificate is not valid: .* mismatch, "):
                await status_of(server.url("/", host, "https"))
        assert len(server.asked) == 1


async def test_an_address_is_checked_where_the_url_has_one(authority: Authority) -> None:
    async with HttpServer().serving(authority.server("127.0.0.1")) as server:
        server.answers["/"] = said(200)
        assert await status_of(server.url("/", "127.0.0.1", "https")) == 200
        with pytest.raises(NotReached, match="mismatch"):
            await status_of(server.url("/", "service.example", "https"))


async def test_nobody_is_believed_who_is_not_trusted(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    async with HttpServer().serving(authority.server("service.example")) as server:
        with pytest.raises(NotReached, match="the certificate is not valid: unable to get local issuer"):
            await status_of(server.url("/", "service.example", "https"))


async def test_a_handshake_that_does_not_end_leaves_no_connection_open(authority: Authority) -> None:
    async with HttpServer().serving() as server:  # which waits for the end of a request, and so says nothing
        with pytest.raises(TimedOut):
            async with egress().request("GET", server.url("/", "service.example", "https"), timeout=0.2):
                pass
        await await_until(lambda: not server.open)
    assert server.connections == 1


async def test_a_port_that_does_not_speak_tls_is_said_to_be_one(authority: Authority) -> None:
    async def speak_plainly(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(speak_plainly, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(NotReached, match=r"no connection: TLS failed: .*(wrong version|record)"):
            await status_of(f"https://127.0.0.1:{port}/")


async def test_a_redirect_never_leads_from_https_to_http(authority: Authority) -> None:
    async with HttpServer().serving(authority.server("service.example")) as server, HttpServer().serving() as plain:
        server.answers["/down"] = said(302, Location=plain.url("/"))
        server.answers["/same"] = said(302, Location=f"//service.example:{server.port}/there")
        server.answers["/there"] = said(200)
        plain.answers["/up"] = said(302, Location=server.url("/there", "service.example", "https"))
        with pytest.raises(AddressRefused, match="redirects to a URL that is refused: it is http, and https was asked"):
            await status_of(server.url("/down", "service.example", "https"), follow_redirects=True)
        assert plain.connections == 0
        assert await status_of(server.url("/same", "service.example", "https"), follow_redirects=True) == 200
        assert await status_of(plain.url("/up"), follow_redirects=True) == 200
