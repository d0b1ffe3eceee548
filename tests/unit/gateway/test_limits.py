"""What the gateway takes of one request, of one connection, and of all of them together, over real sockets."""

import asyncio
import json
import time

import httpx2
import pytest

from services.gateway import body, edge, server
from tests.support.proc import connections
from tests.support.waiting import await_until
from tests.unit.gateway.garden import OWN_JWT, TOKEN, Contract, Garden, open_garden
from tests.unit.gateway.serving import served

POST = (
    f"POST /plants HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {OWN_JWT}\r\nContent-Type: application/json\r\n"
).encode()


async def sent(port: int, *pieces: bytes) -> bytes:
    """What is answered to these bytes, until the connection ends; nothing when it ends before they are taken."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
        await writer.drain()
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        return b""
    finally:
        writer.close()


def problem(answer: bytes) -> dict[str, str]:
    head, _, text = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    found: dict[str, str] = json.loads(text)
    return found


async def test_headers_have_a_limit(garden: Garden) -> None:
    filling = b"X-Filling: " + b"f" * edge.MAX_HEADER_BYTES
    async with served(garden) as gateway:
        answer = await sent(gateway.port, POST, b"Connection: close\r\n", filling, b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 431 ")
        assert problem(answer)["reason"] == "HEADERS_TOO_LARGE"
        # Far beyond it nothing is even read, let alone kept.
        assert b"200 OK" not in await sent(gateway.port, POST, filling * 4, b"\r\n\r\n")
        long_query = b"GET /plants/?cursor=" + b"c" * edge.MAX_HEADER_BYTES
        assert (await sent(gateway.port, long_query, b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))[
            9:12
        ] == b"431"
    assert garden.greenhouse.requests == []


async def test_a_body_has_a_limit_whether_or_not_its_length_is_told(garden: Garden) -> None:
    async with served(garden) as gateway:
        answer = await sent(gateway.port, POST, b"Content-Length: 9999999999\r\n\r\n{")
        assert problem(answer)["reason"] == "BODY_TOO_LARGE"
        chunk = b"%x\r\n%s\r\n" % (body.MAX_BODY_BYTES + 1, b" " * (body.MAX_BODY_BYTES + 1))
        answer = await sent(gateway.port, POST, b"Transfer-Encoding: chunked\r\n\r\n", chunk)
        assert answer.startswith(b"HTTP/1.1 413 ")
    assert garden.greenhouse.requests == []


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, identity"])
async def test_a_compressed_body_is_not_taken(client: httpx2.AsyncClient, garden: Garden, encoding: str) -> None:
    headers = {"Content-Encoding": encoding, "Content-Type": "application/json"}
    answer = await client.post("/plants", content=b"\x1f\x8b", headers=headers)
    assert (answer.status_code, answer.json()["reason"]) == (415, "MEDIA_TYPE_UNSUPPORTED")
    assert garden.greenhouse.requests == []


async def test_json_has_a_depth(client: httpx2.AsyncClient, garden: Garden) -> None:
    deep = b'{"name":"basil","notes":' + b'{"a":' * 5000 + b"1" + b"}" * 5001
    answer = await client.post("/plants", content=deep, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert garden.greenhouse.requests == []


async def test_who_never_ends_its_headers_is_cut_off(garden: Garden, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_HEADER_TIMEOUT_MS", 300)
    async with served(garden) as gateway:
        began = time.monotonic()
        assert b"200" not in await sent(gateway.port, b"GET /health/live HTTP/1.1\r\nHost: x\r\nX-Slow")
        # One byte now and then does not help.
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        dripping = asyncio.create_task(_drip(writer))
        assert b"200" not in await asyncio.wait_for(reader.read(), 5)
        dripping.cancel()
        writer.close()
        assert time.monotonic() - began < 5


async def _drip(writer: asyncio.StreamWriter) -> None:
    writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    while not writer.is_closing():
        writer.write(b"s")
        await asyncio.sleep(0.02)


async def test_who_never_ends_its_body_is_cut_off(garden: Garden, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "BODY_SECONDS", 0.3)
    async with served(garden) as gateway:
        answer = await sent(gateway.port, POST, b"Content-Length: 100\r\n\r\n{")
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert problem(answer)["reason"] == "BODY_TOO_SLOW"


@pytest.mark.parametrize(
    ("path", "ended"),
    [
        ("/plants.csv?endless=true", "export_ended"),
        ("/plants:watch?events=100000&size=10000", "watch_ended"),
        ("/plants/", ""),
    ],
)
async def test_who_takes_nothing_of_its_answer_is_cut_off(
    garden: Garden, monkeypatch: pytest.MonkeyPatch, path: str, ended: str
) -> None:
    monkeypatch.setattr(server, "STALL_SECONDS", 0.5)
    for number in range(200):
        garden.greenhouse.plants[str(number)] = garden.greenhouse.contract.plant(name="basil" * 20_000)
    async with served(garden) as gateway:
        reader, writer = await gateway.ask(path)
        await reader.readuntil(b"\r\n\r\n")
        # What was on its way to it, too, is nowhere any more, nor is what was done for it.
        await await_until(lambda: connections(gateway.port) == 0)
        if ended:
            await asyncio.wait_for(getattr(garden.greenhouse, ended).wait(), 10)
        writer.close()


async def test_a_connection_on_which_nothing_is_asked_any_more_ends(
    garden: Garden, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_HEADER_TIMEOUT_MS", 300)
    async with served(garden) as gateway:
        reader, writer = await gateway.ask("/plants/")
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        await asyncio.wait_for(reader.read(), 5)
        assert reader.at_eof()
        writer.close()


async def test_many_slow_connections_keep_nobody_else_waiting(garden: Garden) -> None:
    async with served(garden) as gateway:
        slow = [await asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(600)]
        for number, (_, writer) in enumerate(slow):
            writer.write(POST + b"Content-Length: 9\r\n\r\n{" if number % 2 else b"GET / HTTP/1.1\r\nX-Slow")
        began = time.monotonic()
        async with asyncio.timeout(5):
            reader, writer = await gateway.ask("/plants/")
            assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        assert time.monotonic() - began < 2
        for _, one in [*slow, (reader, writer)]:
            one.close()


async def test_what_is_too_much_at_one_time_is_turned_away_at_once(contract: Contract) -> None:
    async with open_garden(contract, concurrency=2) as garden:
        garden.greenhouse.hold = asyncio.Event()
        transport, headers = httpx2.ASGITransport(garden.app), {"Authorization": f"Bearer {TOKEN}"}
        async with httpx2.AsyncClient(transport=transport, base_url="http://gateway", headers=headers) as client:
            held = [asyncio.create_task(client.get("/plants/")) for _ in range(2)]
            await await_until(lambda: _asked(garden, 2))
            refused = await client.get("/plants/")
            assert (refused.status_code, refused.json()["reason"]) == (503, "OVERLOADED")
            assert refused.headers["retry-after"] == "1"
            assert (await client.get("/health/live")).status_code == 200
            garden.greenhouse.hold.set()
            assert [answer.status_code for answer in await asyncio.gather(*held)] == [200, 200]
            assert (await client.get("/plants/")).status_code == 200


async def test_an_answer_that_goes_on_keeps_its_place_until_it_ends(contract: Contract) -> None:
    async with open_garden(contract, concurrency=1) as garden, served(garden) as gateway:
        reader, writer = await gateway.ask("/plants:watch")
        await reader.readuntil(b"\r\n\r\n")
        _, refused = None, await sent(gateway.port, POST, b"Connection: close\r\nContent-Length: 2\r\n\r\n{}")
        assert problem(refused)["reason"] == "OVERLOADED"
        writer.close()
        await asyncio.wait_for(garden.greenhouse.watch_ended.wait(), 5)

        async def has_place() -> bool:
            reader, writer = await gateway.ask("/plants/", "Connection: close")
            answer = await reader.read()
            writer.close()
            return b"200 OK" in answer

        await await_until(has_place)


async def test_the_time_that_a_request_may_take_is_the_call_s_deadline(contract: Contract) -> None:
    async with open_garden(contract, timeout_seconds=0.4) as garden:
        garden.greenhouse.hold = asyncio.Event()
        transport, headers = httpx2.ASGITransport(garden.app), {"Authorization": f"Bearer {TOKEN}"}
        async with httpx2.AsyncClient(transport=transport, base_url="http://gateway", headers=headers) as client:
            answer = await client.get("/plants/")
        assert (answer.status_code, answer.json()["code"]) == (504, "DEADLINE_EXCEEDED")
        assert garden.greenhouse.seconds_left is not None
        assert 0 < garden.greenhouse.seconds_left < 0.5
        await asyncio.wait_for(garden.greenhouse.given_up.wait(), 2)


async def _asked(garden: Garden, count: int) -> bool:
    return len(garden.greenhouse.requests) == count
