"""Streams of messages as NDJSON."""

import asyncio
import json

import httpx2
import pytest

from services.chassis.errors import PermissionDenied
from tests.unit.gateway.garden import Garden
from tests.unit.gateway.serving import Served, served

LAST_CHUNK = b"0\r\n\r\n"
NDJSON = "Accept: application/x-ndjson"


async def begun(
    gateway: Served, path: str = "/plants:watch", *headers: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, str]:
    reader, writer = await gateway.ask(path, *(headers or (NDJSON,)))
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).decode()
    return reader, writer, head


async def next_line(reader: asyncio.StreamReader) -> object:
    async with asyncio.timeout(5):
        size = int(await reader.readline(), 16)
        line = (await reader.readexactly(size + 2)).removesuffix(b"\r\n")
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    return json.loads(line)


async def test_each_message_is_a_line_as_it_comes(garden: Garden) -> None:
    async with served(garden) as gateway:
        reader, writer, head = await begun(gateway, "/plants:watch?events=2&after=3")
        assert head.startswith("HTTP/1.1 200 OK")
        assert "content-type: application/x-ndjson\r\n" in head
        assert "cache-control: no-store" in head
        assert [await next_line(reader) for _ in range(3)] == [
            {"number": 3, "text": ""}, {"number": 4, "text": "grows\n"}, {"number": 5, "text": "grows\n"},
        ]  # fmt: skip
        writer.close()
        await asyncio.wait_for(garden.greenhouse.watch_ended.wait(), 5)


async def test_lines_go_on_where_the_caller_says(garden: Garden) -> None:
    async with served(garden) as gateway:
        reader, writer, _ = await begun(gateway, "/plants:watch?after=3", NDJSON, "Last-Event-ID: 7")
        assert await next_line(reader) == {"number": 7, "text": ""}
        writer.close()


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (None, "text/event-stream"),
        ("", "text/event-stream"),
        ("*/*", "text/event-stream"),
        ("application/*", "text/event-stream"),
        ("application/json", "text/event-stream"),
        ("text/event-stream", "text/event-stream"),
        ("application/x-ndjson;q=0", "text/event-stream"),
        ("text/event-stream, application/x-ndjson", "text/event-stream"),
        ("application/x-ndjson;q=0.5, text/event-stream", "text/event-stream"),
        ("application/x-ndjson, text/event-stream;q=0.9", "application/x-ndjson"),
        ("application/x-ndjson, */*;q=0.1", "application/x-ndjson"),
        ("APPLICATION/X-NDJSON; q=0.001", "application/x-ndjson"),
        ("application/x-ndjson;q=nonsense", "application/x-ndjson"),
    ],
)
async def test_only_who_asks_for_lines_gets_them(garden: Garden, accept: str | None, media_type: str) -> None:
    async with served(garden) as gateway:
        headers = ("X-Other: 1",) if accept is None else (f"Accept: {accept}",)
        _, writer, head = await begun(gateway, "/plants:watch", *headers)
        writer.close()
    assert f"content-type: {media_type}" in head


async def test_a_failure_before_the_first_line_is_a_problem(garden: Garden, client: httpx2.AsyncClient) -> None:
    garden.greenhouse.fails_with = PermissionDenied("no")
    answer = await client.get("/plants:watch", headers={"Accept": "application/x-ndjson"})
    assert (answer.status_code, answer.headers["content-type"]) == (403, "application/problem+json")


async def test_a_failure_midway_breaks_the_connection(garden: Garden) -> None:
    async with served(garden) as gateway:
        reader, writer, _ = await begun(gateway)
        await next_line(reader)
        garden.greenhouse.watch_fails.set()
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


async def test_a_gateway_that_stops_breaks_the_connection_at_once(garden: Garden) -> None:
    async with served(garden, grace_seconds=30) as gateway:
        reader, writer, _ = await begun(gateway)
        await next_line(reader)
        assert await gateway.stopped() < 5
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        await asyncio.wait_for(garden.greenhouse.watch_ended.wait(), 5)


async def test_a_stream_that_ends_is_whole(garden: Garden) -> None:
    async with served(garden) as gateway:
        reader, writer, _ = await begun(gateway, "/plants:watch?events=1&ends=true")
        assert [await next_line(reader) for _ in range(2)]
        assert await asyncio.wait_for(reader.readexactly(len(LAST_CHUNK)), 5) == LAST_CHUNK
        writer.close()


async def test_the_document_says_that_there_are_lines(client: httpx2.AsyncClient) -> None:
    operation = (await client.get("/openapi.json")).json()["paths"]["/plants:watch"]["get"]
    content = operation["responses"]["200"]["content"]
    assert content["application/x-ndjson"]["schema"]["$ref"].endswith("WatchPlantsResponse")
